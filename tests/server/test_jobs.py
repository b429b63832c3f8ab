"""Asynchronous jobs: submitted, polled, and cancelled."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

import nulltta
from nulltta.server.app import create_app
from nulltta.server.engine import ServerEngine
from nulltta.server.image_store import StoredImages
from nulltta.server.job_book import LOST_AFTER, JobBook
from nulltta.server.settings import ServerSettings

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


def test_a_job_is_remembered_from_its_end_on(start: Start, closed_gate: threading.Event) -> None:
    at = start(url_lifetime=1)
    name = submit(at, reward=gates.GATED)
    time.sleep(1.2)  # longer in the queue than its images are kept
    closed_gate.set()
    seen = []
    at.until(lambda: seen.append(get(at, f"{JOBS}/{name}")[:2]) or seen[-1][0] == 404)  # type: ignore[func-returns-value]
    assert seen[-2][1]["status"] == "completed"


def test_what_a_job_cannot_be_is_refused(start: Start) -> None:
    at = start()
    assert ask(at, body() | {"stream": True}, "POST", JOBS)[1]["error"]["param"] == "stream"
    assert ask(at, body() | {"n": 1000}, "POST", JOBS)[1]["error"]["param"] == "n"
    assert get(at, f"{JOBS}/job_0")[0] == 404
    assert ask(at, None, "DELETE", f"{JOBS}/job_0")[0] == 404


def test_replicas_answer_for_each_others_jobs(
    tiny: nulltta.GuidedModel, closed_gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.server.app.REPORT_INTERVAL", 0.05)
    settings = ServerSettings(rewards=("brightness", gates.GATED), name="tiny")
    book, images = JobBook(lifetime=60), StoredImages(60, 10)
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(TestClient(create_app(ServerEngine(tiny, settings), images, book), "http://localhost"))
            for _ in range(2)
        )

        def status(name: str) -> str:
            return str(other.get(f"{JOBS}/{name}").json()["status"])

        kept, stopped = (
            one.post(JOBS, json=body(prompt, reward=gates.GATED, eta=eta)).json()["id"]
            for prompt, eta in (("a", 1.0), ("b", 0.5))
        )
        assert {status(kept), status(stopped)} <= {"queued", "running"}
        assert other.delete(f"{JOBS}/{stopped}").json()["status"] == "cancelled"
        closed_gate.set()
        deadline = time.monotonic() + 30
        while status(kept) != "completed":
            assert time.monotonic() < deadline
        url = other.get(f"{JOBS}/{kept}").json()["result"]["data"][0]["url"]
        assert other.get(url).content.startswith(b"\x89PNG")
        assert one.get(f"{JOBS}/{stopped}").json()["status"] == "cancelled"
        assert other.get(f"{JOBS}/job_0").status_code == other.delete(f"{JOBS}/job_0").status_code == 404
    images.close()


def test_a_job_fails_when_its_replica_is_lost_and_is_forgotten_after_its_end() -> None:
    now = 0.0
    book = JobBook(lifetime=60, now=lambda: now)
    book.report([{"id": "lost", "status": "running"}, {"id": "done", "status": "completed"}])
    assert [(book.find(name) or {})["status"] for name in ("lost", "done")] == ["running", "completed"]
    now = LOST_AFTER + 1
    assert (book.find("lost") or {})["error"]["code"] == "replica_lost"
    book.report([{"id": "lost", "status": "running"}])  # it was slow
    assert (book.find("lost") or {})["status"] == "running"
    assert (book.cancel("lost") or {})["status"] == "cancelled"
    assert book.report([{"id": "lost", "status": "running"}]) == ["lost"]
    now += 61
    assert [book.find(name) for name in ("lost", "done")] == [None, None]
