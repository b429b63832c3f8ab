"""What every request passes through, from the outside in: `RequestLog`, `HeaderLimit`, `Authentication`, `BodyLimit`.

These are plain ASGI middlewares because Starlette's base class hides a client's disconnection from the routes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nulltta.runs.network import is_loopback
from nulltta.server import logs
from nulltta.server.auth import APIKeys
from nulltta.server.errors import APIError, internal
from nulltta.server.metrics import ServerMetrics
from nulltta.server.settings import ServerSettings

PUBLIC_PATHS = ("/healthz", "/readyz", "/images/")
"""Paths that need no key: probes, and images, whose names are secrets."""
BODY_TIMEOUT = 30.0
"""Seconds within which the body of a request must arrive."""
MAX_HEADERS = 100
"""The largest number of headers of a request; the parser limits the size of those that arrive in pieces only."""
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
MAX_DISCARDED = 64 << 20
"""Bytes of a body above the limit that are read and discarded, so that its sender receives the error."""


def add_middleware(app: FastAPI, settings: ServerSettings, metrics: ServerMetrics) -> None:
    """Add all middlewares to an application."""
    app.add_middleware(BodyLimit, settings.max_body, {"/v1/images/edits": settings.max_upload})
    app.add_middleware(Authentication, settings)
    if settings.cors_origins:  # before authentication, because browsers ask for permission without the key
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=("GET", "POST"),
            allow_headers=("authorization", "content-type"), expose_headers=("x-request-id", "retry-after"),
        )  # fmt: skip
    app.add_middleware(HeaderLimit)
    app.add_middleware(RequestLog, metrics, quote=settings.log_prompts)
    app.add_middleware(HeadAsGet)


class HeadAsGet:
    """Answers HEAD as GET; the server below sends no body with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        await self.app({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope, receive, send)


class RequestLog:
    """Gives each request an id, logs and counts it, and handles unexpected errors.

    The id is the request's own x-request-id or a new one; the response has it too.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, *, quote: bool) -> None:
        self.app, self.metrics, self.quote = app, metrics, quote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.monotonic(), 0
        request_id = _given_id(scope) or f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            logs.failure("error", error, quote=self.quote, request_id=request_id)
            if not status:
                await internal(request_id).response()(scope, receive, send_with_headers)
        finally:
            self._log(scope, status, request_id, time.monotonic() - began)

    def _log(self, scope: Scope, status: int, request_id: str, seconds: float) -> None:
        # The route's pattern, never the path: clients could make up any number of paths and fill logs and metrics.
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(route, status).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in ("/healthz", "/readyz", "/metrics") else logging.INFO
        logs.write(
            "request", level, request_id=request_id, key=scope["state"].get("key"), method=scope["method"],
            route=route, status=status, seconds=round(seconds, 3),
        )  # fmt: skip


class HeaderLimit:
    """Refuses a request with more than `MAX_HEADERS` headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and len(scope["headers"]) > MAX_HEADERS:
            refusal = APIError(431, f"a request has at most {MAX_HEADERS} headers", code="too_many_headers")
            return await refusal.response()(scope, receive, send)
        return await self.app(scope, receive, send)


class Authentication:
    """Requires an API key or, on a server without keys, a loopback address in the Host and Origin headers.

    The second rule keeps web pages out, which can make their visitor's browser send requests to a loopback address.
    Such a request names the page's own host: as its Host if that name was pointed at the address, else as its Origin,
    which a browser sends even with the forms that need no permission. A request without an Origin is no page's.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app, self.keys = app, APIKeys(settings.keys, settings.key_file)
        self.hosts = {host.lower() for host in settings.allowed_hosts}
        self.origins = settings.cors_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            return await refusal.response()(scope, receive, send)
        return await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> APIError | None:
        headers = dict(scope["headers"])
        if not self.keys:
            host = _host_name(headers.get(b"host", b"").decode("latin-1"))
            if not is_loopback(host) and host.lower() not in self.hosts:
                message = f"'{host}': without an API key this server answers to localhost and loopback addresses only"
                return APIError(403, message, code="forbidden_host")
            if b"origin" in headers and not self._is_welcome(headers[b"origin"].decode("latin-1")):
                return APIError(403, "requests from other web sites are refused", code="forbidden_origin")
            return None
        if scope["path"].startswith(PUBLIC_PATHS):
            return None
        if b"authorization" not in headers:
            message = "no API key: send it as 'Authorization: Bearer KEY'"
            return APIError(401, message, code="missing_api_key")
        if (name := self.keys.accept(headers[b"authorization"])) is None:
            return APIError(401, "incorrect API key", code="invalid_api_key")
        scope["state"]["key"] = name
        return None

    def _is_welcome(self, origin: str) -> bool:
        """Return whether pages of an origin may use a server without keys; those of "null" may not."""
        host = _host_name(origin.partition("://")[2])
        return origin in self.origins or "*" in self.origins or host in self.hosts or is_loopback(host)


class BodyLimit:
    """Reads a request's body before the application sees the request, and refuses one above a number of bytes.

    Args:
        app: the application.
        limit: the number.
        others: other numbers, by path.
    """

    def __init__(self, app: ASGIApp, limit: int, others: Mapping[str, int]) -> None:
        self.app, self.limit, self.others = app, limit, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            return await self.app(scope, receive, send)
        try:
            body = await asyncio.wait_for(self._read(receive, self.others.get(scope["path"], self.limit)), BODY_TIMEOUT)
        except TimeoutError:
            refusal = APIError(408, f"the body did not arrive within {BODY_TIMEOUT:g} s", code="timeout")
            return await refusal.response()(scope, receive, send)
        except APIError as refusal:
            return await refusal.response()(scope, receive, send)
        unread = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(unread, None) or await receive()

        return await self.app(scope, replay, send)

    async def _read(self, receive: Receive, limit: int) -> bytes:
        body, size, more = bytearray(), 0, True
        while more and size <= max(limit, MAX_DISCARDED):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise APIError(400, "the connection closed before the end of the body", code="invalid_body")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size <= limit:
                body += chunk
            else:
                body.clear()
        if size > limit:
            raise APIError(413, f"the body is larger than {limit} bytes", code="body_too_large")
        return bytes(body)


def _given_id(scope: Scope) -> str | None:
    """Return the id that a client gave its request in x-request-id; None if there is none or it is malformed."""
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else None


def _host_name(authority: str) -> str:
    """Return "::1" of "[::1]:80"; text that is not a valid authority is returned unchanged."""
    try:
        return urlsplit(f"//{authority}").hostname or authority
    except ValueError:
        return authority
