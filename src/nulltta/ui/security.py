"""What the server refuses, and the headers by which the browser loads nothing from other servers.

A page that listens on this machine only could still be reached from a foreign web site: by a form or a script that
sends requests to it, which carry a foreign `Origin`, or by a name that its owner points at 127.0.0.1 (DNS rebinding),
which is a foreign `Host`. Both are refused before the body of a request is read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from nulltta.runs.network import is_loopback

POLICY = (
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval'", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "font-src 'self' data:", "worker-src 'self' blob:", "base-uri 'self'",
    "form-action 'self'", "object-src 'none'",
)  # fmt: skip
HEADERS = ((b"referrer-policy", b"no-referrer"), (b"x-content-type-options", b"nosniff"))


class Guarded:
    """ASGI middleware that refuses foreign requests and adds headers to every response.

    Args:
        app: the application.
        hosts: the names under which the page may be reached beside those of this machine; "*" for any name.
        frame_ancestors: which pages may embed this one, as in a content security policy: "'none'", or
            "'self' https://example.org".
    """

    def __init__(self, app: Any, hosts: Collection[str] = (), frame_ancestors: str = "'none'") -> None:
        self.app, self._hosts = app, frozenset(host.lower() for host in hosts)
        policy = "; ".join((*POLICY, f"frame-ancestors {frame_ancestors}"))
        self._headers = (*HEADERS, (b"content-security-policy", policy.encode()))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if refusal := self._refusal(dict(scope["headers"])):
            await _answer(send, 403, refusal)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self.app(scope, receive, with_headers)

    def _refusal(self, headers: dict[bytes, bytes]) -> str:
        """Return why a request is refused, or ""."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_known(host):
            return f"this page is not served under the name '{_name(host)}': start it with --allow-host {_name(host)}"
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and urlsplit(origin).netloc != host:
            return f"requests from other web sites are refused, such as from '{origin}'"
        return ""

    def _is_known(self, host: str) -> bool:
        name = _name(host)
        return "*" in self._hosts or name in self._hosts or (bool(name) and is_loopback(name))


def _name(host: str) -> str:
    """Return a host without its port: "localhost:7860" -> "localhost", "[::1]:80" -> "::1"."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _answer(send: Any, status: int, words: str) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
    )
    await send({"type": "http.response.body", "body": words.encode()})
