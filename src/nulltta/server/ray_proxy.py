"""What runs in Ray Serve's proxy. This module does not import torch."""

from __future__ import annotations

import os

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OURS = b"x-content-type-options"
"""A header that every answer of a replica has, and no answer of Ray Serve's own."""
_LIMIT = "NULLTTA_RETRIED_BODY"


def retrying(limit: int) -> dict[str, str]:
    """Return the environment variables by which Ray Serve's proxy gets `RetriedOnce`.

    Args:
        limit: the bytes of a body that are kept.
    """
    return {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middlewares", _LIMIT: str(limit)}


def middlewares() -> list[Middleware]:
    """Return what wraps Ray Serve's proxy, which calls this function when it starts."""
    return [Middleware(RetriedOnce, limit=int(os.environ[_LIMIT]))]


class RetriedOnce:
    """Sends a request to another replica where the first dies before it has answered.

    Ray Serve then gives no answer, or an error of its own, which is told from a replica's by a header. An answer that
    has begun, as a stream's, cannot be repeated: it breaks off.

    Args:
        app: Ray Serve's proxy.
        limit: the bytes of a body that are kept; a request with a larger one is not repeated.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        received: list[Message] = []
        size, refused = 0, True

        async def record() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size <= self.limit:
                received.append(message)
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                by_replica = any(name.lower() == OURS for name, _ in message["headers"])
                refused = message["status"] >= 500 and not by_replica and repeatable()
            if not refused:
                await send(message)

        def repeatable() -> bool:
            return size <= self.limit and not any(each["type"] == "http.disconnect" for each in received)

        await self.app(dict(scope), record, send_unless_refused)
        if not refused or not repeatable():
            return None
        unread = iter(received)

        async def replay() -> Message:
            return next(unread, None) or await receive()

        return await self.app(dict(scope), replay, send)
