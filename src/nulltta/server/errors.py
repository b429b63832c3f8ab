"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Response
from starlette.exceptions import HTTPException

from nulltta.errors import InvalidValue, NullTTAError, OutOfMemory, RewardError
from nulltta.server.schemas import OPTIONS

RETRY_AFTER_OUT_OF_MEMORY = 10.0
"""Seconds after which a request that ran out of memory may be repeated: another program may have used the memory."""


class APIError(Exception):
    """The error that a client receives.

    Args:
        status: the HTTP status.
        message: one line for a human.
        code: a word for a program.
        param: the field of the request that is to blame, if a single one is.
        retry_after: the seconds to wait before asking again; None where asking again does not help, which clients
            are told.
        headers: further headers of the response.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None,
        retry_after: float | None = None, headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after, self.headers = retry_after, headers or {}

    @property
    def type(self) -> str:
        """OpenAI's type of the error."""
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> dict[str, Any]:
        """Return the body of the response."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """Return the response, with the headers that OpenAI's clients decide by whether to retry."""
        headers = {"x-should-retry": "false"}  # without it, OpenAI's clients repeat a 5xx
        if self.retry_after is not None:
            headers = {"retry-after": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        headers |= self.headers
        content = json.dumps(self.body())  # in ASCII, since what it quotes may not be valid Unicode
        return Response(content, self.status, headers, media_type="application/json")


def from_exception(error: BaseException, request_id: str) -> APIError:
    """Return what a client is told about an exception that ended its batch.

    Only the message of an `InvalidValue`, which is about the request itself, is passed on: other messages may hold
    paths, code or other internals of the server. They are in the server's log, under the request's id.
    """
    match error:
        case InvalidValue():
            return from_invalid_value(error)
        case OutOfMemory():
            message = "out of memory: ask for fewer images or candidates, or ask again later"
            return APIError(
                error.http_status, message, code="out_of_memory", retry_after=RETRY_AFTER_OUT_OF_MEMORY
            )  # fmt: skip
        case RewardError():
            message = f"the reward failed; the server's log has the details under {request_id}"
            return APIError(error.http_status, message, code="reward_failed")
        case NullTTAError():
            return internal(request_id, error.http_status)
    return internal(request_id)


def from_invalid_value(error: InvalidValue, param: str | None = None) -> APIError:
    """Return the error for a value that a request asked for; param: the blamed field if the error names none."""
    if error.field in OPTIONS:
        param = f"nulltta.{error.field}"
        return APIError(error.http_status, f"'{param}': {error.reason}", code="invalid_value", param=param)
    return APIError(error.http_status, str(error), code="invalid_value", param=param)


def from_validation(errors: Sequence[Any]) -> APIError:
    """Return the error for the first of pydantic's complaints about a request's body."""
    first = errors[0]
    location = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return APIError(400, f"the body is not JSON: {first['ctx']['error']}", code="invalid_json")
    if not location:
        message = "the body is not a JSON object sent with Content-Type: application/json"
        return APIError(400, message, code="invalid_body")
    param = ".".join(location[:2])  # what follows names a member of a union, which clients do not know
    if first["type"] == "extra_forbidden":
        return APIError(400, f"unknown parameter '{param}'", code="unknown_parameter", param=param)
    if first["type"] == "missing":
        return APIError(400, f"'{param}' is missing", code="missing_required_parameter", param=param)
    return APIError(400, f"'{param}': {first['msg'].removeprefix('Value error, ')}", code="invalid_value", param=param)


def from_http(error: HTTPException, request: str) -> APIError:
    """Return the error for an unknown route, a wrong method and the like; request: its method and path."""
    code = HTTPStatus(error.status_code).name.lower()
    return APIError(error.status_code, f"{error.detail}: {request}", code=code, headers=error.headers)


def internal(request_id: str, status: int = 500) -> APIError:
    """Return the error that reveals nothing but where the log has more."""
    message = f"internal error; the server's log has the details under {request_id}"
    return APIError(status, message, code="internal_error")


def stopping() -> APIError:
    """Return the error for requests that the server will not take any more."""
    return APIError(503, "the server is stopping: ask again", code="stopping", retry_after=1)


def timed_out(seconds: float) -> APIError:
    """Return the error for a request that took too long."""
    message = f"not finished within {seconds:g} s, waiting included: ask for fewer steps or images"
    return APIError(504, message, code="timeout")
