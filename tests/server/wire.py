"""Raw HTTP requests, for what OpenAI's client would not send."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPMessage
from typing import Any

from .serving import KEY, Running, options

GENERATE = "/v1/images/generations"


def body(prompt: str = "a", **given: Any) -> dict[str, Any]:
    """Return the body of a short request whose reward is brightness."""
    return {"prompt": prompt, "nulltta": options(**given)}


def send(at: Running, body: Any = None, method: str = "POST", path: str = GENERATE,
         headers: dict[str, str | None] | None = None, timeout: float = 120) -> HTTPConnection:  # fmt: skip
    """Send a request without waiting for the response.

    Args:
        at: the server.
        body: a dictionary to send as JSON, bytes, or an iterable of chunks.
        method: the HTTP method.
        path: the path.
        headers: additional headers; a value of None leaves out one of the usual headers.
        timeout: seconds.
    """
    usual = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    given = {name: value for name, value in {**usual, **(headers or {})}.items() if value is not None}
    connection = HTTPConnection("127.0.0.1", at.port, timeout=timeout)
    connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, given)
    return connection


def answer(connection: HTTPConnection) -> tuple[int, Any, HTTPMessage]:
    """Return status, body (parsed if it is JSON) and headers, and close the connection."""
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = (response.headers["content-type"] or "").startswith("application/json")
    return response.status, json.loads(content) if is_json and content else content, response.headers


def ask(at: Running, *args: Any, **kwargs: Any) -> tuple[int, Any, HTTPMessage]:
    return answer(send(at, *args, **kwargs))


def get(at: Running, path: str, **headers: str | None) -> tuple[int, Any, HTTPMessage]:
    return ask(at, None, "GET", path, headers)
