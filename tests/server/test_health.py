"""The probes follow the worker's progress, and nothing that a reward does ends the server or keeps it from stopping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from nulltta.server.health import WorkerHealth

from . import gates
from .serving import Running
from .wire import ask, body, get, send

Start = Callable[..., Running]
PICKY = {"reward": gates.PICKY}


def test_failures_in_a_row_make_the_server_unready_until_it_works_again(start: Start) -> None:
    at = start()
    for prompt in ("exit", "boom", "exit"):
        assert get(at, "/readyz")[0] == 200
        assert ask(at, body(prompt, **PICKY))[0] == 500
    assert get(at, "/readyz")[:2] == (503, {"status": "the last 3 batches failed"})
    assert get(at, "/healthz")[0] == 200
    assert at.metric("failed_batches_total") == 3
    assert ask(at, body(**PICKY))[0] == 200
    assert get(at, "/readyz")[0] == 200


def test_a_mistake_of_the_client_is_no_failure(start: Start) -> None:
    """One that only sampling finds."""
    at = start()
    status, answered, _ = ask(at, body(inner_decoder="tiny"))
    assert (status, answered["error"]["code"]) == (400, "invalid_value"), answered
    assert at.metric("failed_batches_total") == 0


def test_a_broken_device_ends_the_servers_life(start: Start) -> None:
    at = start()
    assert ask(at, body("cuda", **PICKY))[0] == 500
    reason = {"status": "the device is in a state of error, which only a new process ends"}
    assert get(at, "/readyz")[:2] == (503, reason)
    assert get(at, "/healthz")[:2] == (500, reason)
    assert ask(at, body())[0] == 503  # refused at once


def test_a_hung_reward_is_noticed_and_does_not_keep_the_server_from_stopping(
    start: Start, closed_gate: threading.Event
) -> None:
    at = start(stall=0.3, grace=0.2)
    hung = send(at, body(reward=gates.GATED))
    at.until(lambda: get(at, "/readyz")[0] == 503)
    at.until(lambda: get(at, "/healthz")[0] == 500)
    began = time.monotonic()
    at.stop()
    at.thread.join(30)
    assert time.monotonic() - began < 15
    assert at.engine.worker.is_alive()
    hung.close()
    closed_gate.set()
    at.engine.worker.join(30)


def test_health_is_a_matter_of_time() -> None:
    now = 0.0
    health = WorkerHealth(stall=10, now=lambda: now)
    health.progress()
    now = 10.0
    assert not health.unready()
    now = 11.0
    assert "no progress for more than 10 s" in health.unready()
    assert not health.dead()
    now = 21.0
    assert "no progress for more than 20 s" in health.dead()
    health.ended()
    assert not health.unready()
    for _ in range(3):
        health.failed(ValueError())
    assert health.unready() == "the last 3 batches failed"
    now = 60.0  # it takes requests again, to find out whether they still fail
    assert not health.unready()
    health.failed(ValueError())
    assert health.unready() == "the last 4 batches failed"
