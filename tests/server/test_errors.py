"""What a client is told about an error that ended its batch."""

from __future__ import annotations

from typing import Any

import pytest

from nulltta.errors import DoesNotFit, InvalidValue, LoadError, MissingExtra, NullTTAError, OutOfMemory, RewardError
from nulltta.server.errors import from_exception

SECRET = "/home/operator/secret.txt"


@pytest.mark.parametrize(
    ("error", "status", "code", "param", "says"),
    [
        (InvalidValue("must be 1 or more, not 0", field="num_particles"), 400, "invalid_value",
         "nulltta.num_particles", "'nulltta.num_particles': must be 1 or more, not 0"),
        (InvalidValue("a budget of 3 does not cover the plain image"), 400, "invalid_value", None, "budget of 3"),
        (InvalidValue("must be text", field="prompts"), 400, "invalid_value", None, "prompts must be text"),
        (DoesNotFit("the latents have another shape"), 400, "invalid_value", None, "another shape"),
        (RewardError(f"the reward cannot read {SECRET}"), 500, "reward_failed", None, "req_1"),
        (OutOfMemory(f"memory ran out in {SECRET}"), 503, "out_of_memory", None, "fewer images"),
        (LoadError(f"cannot read {SECRET}"), 500, "internal_error", None, "req_1"),
        (MissingExtra(SECRET, "a library", "server"), 500, "internal_error", None, "req_1"),
        (NullTTAError(SECRET), 500, "internal_error", None, "req_1"),
        (FileNotFoundError(2, "No such file", SECRET), 500, "internal_error", None, "req_1"),
        (LookupError(f"two\nlines of {SECRET}"), 500, "internal_error", None, "req_1"),
    ],
)  # fmt: skip
def test_each_kind_of_error_has_its_status_and_reveals_nothing(
    error: Exception, status: int, code: str, param: str | None, says: str
) -> None:
    found = from_exception(error, "req_1")
    body: dict[str, Any] = found.body()["error"]
    assert (found.status, body["code"], body["param"]) == (status, code, param)
    assert body["type"] == ("invalid_request_error" if status == 400 else "server_error")
    assert says in body["message"]
    assert SECRET not in body["message"]
    headers = found.response().headers
    assert ("retry-after" in headers, "x-should-retry" in headers) == (status == 503, status != 503)
