"""Asynchronous jobs: submitted, polled, and cancelled."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable
from typing import Any

from . import gates
from .serving import Running
from .wire import ask, body, get

Start = Callable[..., Running]
JOBS = "/v1/images/jobs"


def submit(at: Running, prompt: str = "a", **options: Any) -> str:
    status, answered, _ = ask(at, body(prompt, **options), "POST", JOBS)
    assert status == 202
    assert answered["status"] in ("queued", "running")
    return str(answered["id"])


def poll(at: Running, name: str) -> dict[str, Any]:
    status, answered, _ = get(at, f"{JOBS}/{name}")
    assert status == 200
    assert answered["id"] == name
    return dict(answered)


def test_a_job_is_submitted_polled_and_fetched(start: Start, closed_gate: threading.Event) -> None:
    at = start()
    first, second = submit(at, reward=gates.GATED), submit(at, "boom", reward=gates.PICKY)
    at.until(lambda: poll(at, first)["status"] == "running")
    assert poll(at, second)["status"] == "queued"
    closed_gate.set()
    at.until(lambda: poll(at, first)["status"] == "completed")
    [image] = poll(at, first)["result"]["data"]
    with urllib.request.urlopen(image["url"]) as response:
        assert response.read(4) == b"\x89PNG"
    at.until(lambda: poll(at, second)["status"] == "failed")
    assert poll(at, second)["error"]["code"] == "reward_failed"


def test_a_cancelled_job_stops(start: Start, closed_gate: threading.Event) -> None:
    at = start()
    running, waiting = submit(at, reward=gates.GATED), submit(at, "b", reward=gates.GATED, eta=0.5)
    at.until(lambda: poll(at, running)["status"] == "running")
    for name in (waiting, running):
        status, answered, _ = ask(at, None, "DELETE", f"{JOBS}/{name}")
        assert (status, answered["status"]) == (200, "cancelled")
    closed_gate.set()
    at.until(lambda: at.metric("abandoned_batches_total") == 1)
    assert [poll(at, name)["status"] for name in (running, waiting)] == ["cancelled"] * 2
    assert at.metric("denoising_steps_total") == 0


def test_what_a_job_cannot_be_is_refused(start: Start) -> None:
    at = start()
    assert ask(at, body() | {"stream": True}, "POST", JOBS)[1]["error"]["param"] == "stream"
    assert ask(at, body() | {"n": 1000}, "POST", JOBS)[1]["error"]["param"] == "n"
    assert get(at, f"{JOBS}/job_0")[0] == 404
    assert ask(at, None, "DELETE", f"{JOBS}/job_0")[0] == 404
