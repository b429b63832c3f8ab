"""What `nulltta serve` does: load, listen, and stop without losing what is in progress."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.server import logs
from nulltta.server.app import create_app
from nulltta.server.engine import Engine
from nulltta.server.settings import Settings


class Server(uvicorn.Server):
    """uvicorn's, which on its way out turns waiting requests away and gives those in progress their grace."""

    def __init__(self, engine: Engine) -> None:
        settings = engine.settings
        super().__init__(uvicorn.Config(
            create_app(engine), host=settings.host, port=settings.port, log_config=None, access_log=False,
            server_header=False, lifespan="on", timeout_graceful_shutdown=int(settings.grace) + 5,
        ))  # fmt: skip
        self.engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logs.write("stopping", grace=self.engine.settings.grace)
        self.engine.close()
        abort = asyncio.get_running_loop().call_later(self.engine.settings.grace, self.engine.abort)
        await super().shutdown(sockets)
        abort.cancel()


def serve(settings: Settings, load: Callable[[], GuidedModel]) -> None:
    """Serve until SIGTERM or Ctrl-C; returns when all work has ended. load: gives the model.

    Raises:
        NullTTAError: the model or a reward does not load, or the address cannot be listened on.
    """
    listener = listen(settings.host, settings.port)
    with listener:
        engine = Engine(load(), settings)
        logs.set_up(quote=settings.log_prompts)
        logs.write(
            "listening", address=address(*listener.getsockname()[:2]), model=settings.name,
            rewards=engine.offer.names, key_needed=bool(settings.keys),
        )  # fmt: skip
        listener.listen(2048)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):  # what stopped uvicorn, which hands it on when it has stopped
            Server(engine).run(sockets=[listener])
        logs.write("stopped")


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, before anything slow: a taken port is told at once. It does not listen yet."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise InvalidValue(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return listener


def address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
