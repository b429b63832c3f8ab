"""A request whose replica dies, as Ray Serve's proxy passes it on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from nulltta.server.ray_proxy import OURS, RetriedOnce


class Proxy:
    """Reads each request's body and answers with the next status, as a replica does or as Ray Serve itself does."""

    def __init__(self, answers: Sequence[tuple[int, bool]]) -> None:
        self.answers, self.bodies = iter(answers), list[bytes]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.bodies.append(body)
        status, by_replica = next(self.answers)
        if not status:  # Ray Serve's proxy leaves the answer to the server below it
            return
        headers = [(OURS, b"nosniff")] if by_replica else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": str(len(self.bodies)).encode()})


@pytest.mark.parametrize(
    ("answers", "status", "tries"),
    [
        ([(200, True)], 200, 1),
        ([(500, True)], 500, 1),  # a replica's own answer
        ([(500, False), (200, True)], 200, 2),
        ([(0, False), (200, True)], 200, 2),
        ([(500, False), (500, False)], 500, 2),  # once only
        ([(404, False)], 404, 1),
    ],
)
def test_a_request_is_repeated_once_where_its_replica_died(
    answers: list[tuple[int, bool]], status: int, tries: int
) -> None:
    proxy = Proxy(answers)
    answer = TestClient(RetriedOnce(proxy, limit=100)).post("/", content=iter([b"a" * 60, b"b" * 40]))
    assert (answer.status_code, answer.text) == (status, str(tries))
    assert proxy.bodies == [b"a" * 60 + b"b" * 40] * tries


def test_a_body_above_the_limit_is_not_kept() -> None:
    proxy = Proxy([(500, False)])
    assert TestClient(RetriedOnce(proxy, limit=100)).post("/", content=b"a" * 101).status_code == 500
