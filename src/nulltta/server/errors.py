"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Response
from starlette.exceptions import HTTPException


class APIError(Exception):
    """What a client is told.

    Attributes:
        status: of HTTP.
        param: the request's field that is to blame.
        code: a word that programs can go by.
        retry_after: seconds; None where asking again does not help, and clients are told so.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None,
        retry_after: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        headers = {"x-should-retry": "false"}  # OpenAI's clients heed it, and would try a 5xx again
        if self.retry_after is not None:
            headers = {"retry-after": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        content = json.dumps(self.body())  # in ASCII: what it quotes may be no Unicode text
        return Response(content, self.status, headers, media_type="application/json")


def from_validation(errors: Sequence[Any]) -> APIError:
    """The first of pydantic's complaints about a request's body."""
    first = errors[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return APIError(400, f"the body is not JSON: {first['ctx']['error']}", code="invalid_json")
    if not where:
        hint = "send a JSON object, with Content-Type: application/json"
        return APIError(400, f"the body is not what it should be: {hint}", code="invalid_body")
    param = ".".join(where[:2])  # of a union, what follows is which of its kinds the value is not
    if first["type"] == "extra_forbidden":
        return APIError(400, f"unknown parameter '{param}'", code="unknown_parameter", param=param)
    if first["type"] == "missing":
        return APIError(400, f"'{param}' is missing", code="missing_required_parameter", param=param)
    return APIError(400, f"'{param}': {first['msg'].removeprefix('Value error, ')}", code="invalid_value", param=param)


def from_http(error: HTTPException, what: str) -> APIError:
    """No such route, no such method, ...; what: the method and path that were asked for."""
    return APIError(error.status_code, f"{error.detail}: {what}", code=HTTPStatus(error.status_code).name.lower())


def internal(request_id: str) -> APIError:
    """Of what nobody foresaw: the log has more, under the request's id."""
    return APIError(500, f"internal error; the server's log says more under {request_id}", code="internal_error")


def stopping() -> APIError:
    return APIError(503, "the server is stopping: ask again", code="stopping", retry_after=1)


def timed_out(seconds: float) -> APIError:
    return APIError(
        504, f"not finished within {seconds:g} s, waiting included: ask for fewer steps or images", code="timeout"
    )
