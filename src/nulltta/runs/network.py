"""Network addresses, as the servers of this package use them."""

from __future__ import annotations

import ipaddress
import socket

from nulltta.errors import InvalidValue, first_line


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address. Of host names, only "localhost" is known to be such."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket without listening yet, so that a taken port is reported before anything slow begins.

    Raises:
        InvalidValue: if the address cannot be bound.
    """
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise InvalidValue(f"cannot listen on {host}, port {port}: {first_line(error)}") from error
    return bound


def url(host: str, port: int) -> str:
    """Return "http://HOST:PORT", with an IPv6 address in brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
