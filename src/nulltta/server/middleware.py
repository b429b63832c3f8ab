"""What every request goes through, outermost first: `Watched`, `Guarded`, `Bounded`. Plain ASGI, so that the routes
still hear of a client that goes away."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nulltta.server import logs
from nulltta.server.auth import Keys
from nulltta.server.errors import APIError, internal
from nulltta.server.metrics import Metrics
from nulltta.server.settings import Settings, is_loopback

OPEN = ("/healthz", "/readyz", "/images/")  # without a key: probes, and pictures, whose names are secrets
PATIENCE = 30.0  # seconds for a request's body to arrive
DRAINED = 64 << 20  # bytes of a body that is too big, read and dropped so that its sender hears why


def add_all(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    app.add_middleware(Bounded, settings.max_body)
    app.add_middleware(Guarded, settings)
    app.add_middleware(Watched, metrics, quote=settings.log_prompts)


class Watched:
    """Gives each request an id (the answer's x-request-id), logs and counts its end, and answers what nobody caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, quote: bool) -> None:
        self.app, self.metrics, self.quote = app, metrics, quote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.monotonic(), 0
        request_id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except Exception as error:
            logs.failure("error", error, quote=self.quote, request_id=request_id)
            if not status:
                await internal(request_id).response()(scope, receive, answer)
        finally:
            self._ended(scope, status, request_id, time.monotonic() - began)

    def _ended(self, scope: Scope, status: int, request_id: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # never what the client wrote: that would be any text
        self.metrics.requests.labels(route, status).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in ("/healthz", "/readyz", "/metrics") else logging.INFO
        logs.write(
            "request", level, request_id=request_id, method=scope["method"], route=route, status=status,
            seconds=round(seconds, 3),
        )  # fmt: skip


class Guarded:
    """Asks for an API key. Where there is none to ask for, asks that the request was meant for this machine: else a
    web page could have its visitor's browser, which reaches loopback addresses, ask in the page's name."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.keys = app, Keys(settings.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            return await refusal.response()(scope, receive, send)
        return await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> APIError | None:
        headers = dict(scope["headers"])
        if not self.keys:
            host = _host(headers.get(b"host", b"").decode("latin-1"))
            hint = "without an API key this server answers to localhost and loopback addresses only"
            return None if is_loopback(host) else APIError(403, f"'{host}': {hint}", code="forbidden_host")
        if scope["path"].startswith(OPEN):
            return None
        if b"authorization" not in headers:
            message = "no API key: send it as 'Authorization: Bearer KEY'"
            return APIError(401, message, code="missing_api_key")
        if not self.keys.accept(headers[b"authorization"]):
            return APIError(401, "incorrect API key", code="invalid_api_key")
        return None


class Bounded:
    """Reads a request's body before anything is done with it, no longer than `limit` bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            return await self.app(scope, receive, send)
        try:
            body = await asyncio.wait_for(self._read(receive), PATIENCE)
        except TimeoutError:
            refusal = APIError(408, f"the body did not arrive within {PATIENCE:g} s", code="timeout")
            return await refusal.response()(scope, receive, send)
        except APIError as refusal:
            return await refusal.response()(scope, receive, send)
        unread = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(unread, None) or await receive()

        return await self.app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes:
        body, size, more = b"", 0, True
        while more and size <= DRAINED:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise APIError(400, "the body broke off", code="invalid_body")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            body = body + chunk if size <= self.limit else b""
        if size > self.limit:
            raise APIError(413, f"the body is larger than {self.limit} bytes", code="body_too_large")
        return body


def _host(authority: str) -> str:
    """Without its port; whole where it is none: "[::1]:80" -> "::1"."""
    try:
        return urlsplit(f"//{authority}").hostname or authority
    except ValueError:
        return authority
