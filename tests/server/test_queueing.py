"""Waiting, batching, refusals and disconnections, with the worker held at a closed gate."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from io import BytesIO
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from nulltta.config import NullTTAConfig
from nulltta.server.job_queue import JobQueue
from nulltta.server.jobs import ImageJob, JobSettings

from . import gates
from .serving import KEY, Running
from .wire import answer, ask, body, get, send

Start = Callable[..., Running]
GATED = {"reward": gates.GATED}


def waiting(at: Running, count: int) -> None:
    at.until(lambda: at.metric("waiting_requests") == count)


def busy(at: Running, **options: Any) -> HTTPConnection:
    """Send a request that keeps the worker waiting at the closed gate."""
    sent = send(at, body("the first", **GATED, **options))
    at.until(lambda: at.metric("running_images") == 1)
    return sent


def image(answered: tuple[int, Any, Any]) -> str:
    status, content, _ = answered
    assert status == 200, content
    return str(content["data"][0]["b64_json"])


def test_batching_requests_of_equal_settings_does_not_change_their_images(
    start: Start, closed_gate: threading.Event
) -> None:
    at = start(batch_size=4, max_images=4)
    first = busy(at)
    together = [send(at, body(prompt, seed=seed)) for prompt, seed in (("a", 0), ("b", 5), ("c", 7))]
    waiting(at, 3)
    other = send(at, body("a", num_inference_steps=5))
    waiting(at, 4)
    closed_gate.set()
    images = [image(answer(one)) for one in (first, *together, other)]
    assert at.metric("batch_images_count") == 3  # the first, the three, the one with other settings
    assert at.metric("batch_images_sum") == 5
    alone = [image(ask(at, body(prompt, seed=seed))) for prompt, seed in (("a", 0), ("b", 5), ("c", 7))]
    assert np.abs(pixels(images[1:4]) - pixels(alone)).max() <= 1
    assert np.abs(pixels(images[1:3]) - pixels(images[2:4])).max() > 1


def pixels(encoded: Sequence[str]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(BytesIO(base64.b64decode(one))), int) for one in encoded])


def test_a_full_queue_says_when_to_retry(start: Start, closed_gate: threading.Event) -> None:
    at = start(queue_size=2)
    sent = [busy(at)]
    for count in (1, 2):
        sent.append(send(at, body("a", **GATED)))
        waiting(at, count)
    status, answered, headers = ask(at, body("one too many"))
    assert (status, answered["error"]["type"], answered["error"]["code"]) == (429, "rate_limit_error", "queue_full")
    assert 1 <= int(headers["retry-after"]) < 120
    assert "x-should-retry" not in headers
    closed_gate.set()
    assert [answer(one)[0] for one in sent] == [200] * 3


def test_openais_client_retries_on_its_own(start: Start, closed_gate: threading.Event) -> None:
    at = start(queue_size=1)
    first = busy(at)
    second = send(at, body("a", **GATED))
    waiting(at, 1)
    with at.client() as client:
        opened = threading.Timer(0.3, closed_gate.set)
        opened.start()
        found = client.with_options(max_retries=2).images.generate(prompt="b", extra_body=body())
    opened.join()
    assert len(found.data or ()) == 1
    assert at.metric("requests_total", route="/v1/images/generations", status="429") >= 1
    assert [answer(one)[0] for one in (first, second)] == [200] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_batch_that_nobody_waits_for_is_stopped(start: Start, closed_gate: threading.Event, stream: bool) -> None:
    at = start()
    sent = send(at, body(**GATED, num_inference_steps=50) | {"stream": stream})
    at.until(lambda: at.metric("running_images") == 1)
    sent.close()
    at.until(lambda: not any(job.wanted for job in at.engine.worker.batch))
    closed_gate.set()
    at.until(lambda: at.metric("abandoned_batches_total") == 1)
    assert at.metric("denoising_steps_total") == 0  # it stopped before the next inner step
    assert ask(at, body())[0] == 200


def test_a_disconnected_client_frees_its_place_in_the_queue(start: Start, closed_gate: threading.Event) -> None:
    at = start(queue_size=1)
    first = busy(at)
    second = send(at, body("a"))
    waiting(at, 1)
    second.close()
    waiting(at, 0)
    third = send(at, body("b"))
    waiting(at, 1)
    closed_gate.set()
    assert [answer(one)[0] for one in (first, third)] == [200] * 2
    assert at.metric("images_total", method="null-tta") == 2


def test_a_disconnected_client_does_not_stop_the_rest_of_its_batch(start: Start, closed_gate: threading.Event) -> None:
    at = start()
    first = busy(at)
    gone, stays = send(at, body("a")), send(at, body("b"))
    waiting(at, 2)
    closed_gate.set()
    gone.close()
    assert [answer(one)[0] for one in (first, stays)] == [200] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long_times_out(start: Start, closed_gate: threading.Event, stream: bool) -> None:
    at = start(timeout=0.5)
    status, answered, headers = ask(at, body(**GATED) | {"stream": stream})
    if stream:
        status, answered = 504, json.loads(answered.decode().split("event: error\ndata: ")[1])
    else:
        assert headers["x-should-retry"] == "false"
    assert (status, answered["error"]["type"], answered["error"]["code"]) == (504, "server_error", "timeout")
    closed_gate.set()
    at.until(lambda: at.metric("abandoned_batches_total") == 1)
    assert at.metric("denoising_steps_total") == 0


@pytest.mark.filterwarnings("ignore:out of memory")  # the warning that rows are halved
@pytest.mark.parametrize(
    ("prompt", "status", "code"),
    [("nan", 500, "reward_failed"), ("boom", 500, "reward_failed"), ("full", 503, "out_of_memory")],
)
def test_one_requests_failure_does_not_fail_the_rest_of_its_batch(
    start: Start, closed_gate: threading.Event, capsys: pytest.CaptureFixture[str], prompt: str, status: int, code: str
) -> None:
    at = start()
    first = busy(at)
    good, bad = send(at, body("good", reward=gates.PICKY)), send(at, body(prompt, reward=gates.PICKY))
    waiting(at, 2)
    closed_gate.set()
    assert [answer(one)[0] for one in (first, good)] == [200] * 2
    found, answered, _ = answer(bad)
    assert (found, answered["error"]["code"]) == (status, code)
    assert "operator" not in json.dumps(answered)  # the message of the exception stays on the server
    with at.client() as client, pytest.raises(openai.APIError) as refused:  # in a stream, after its status
        list(client.images.generate(stream=True, extra_body=body(prompt, reward=gates.PICKY), prompt=prompt))
    assert refused.value.code == code


def test_stopping_finishes_the_running_batch_and_refuses_the_rest(start: Start, closed_gate: threading.Event) -> None:
    at = start(grace=600)
    running = busy(at)
    waits = send(at, body("a", **GATED))
    waiting(at, 1)
    at.stop()
    status, answered, headers = answer(waits)
    assert (status, answered["error"]["type"], answered["error"]["code"]) == (503, "server_error", "stopping")
    assert headers["retry-after"] == "1"
    closed_gate.set()
    assert answer(running)[0] == 200
    at.thread.join(30)
    assert not at.thread.is_alive()


def test_the_running_batch_is_stopped_after_the_grace_period(start: Start, closed_gate: threading.Event) -> None:
    at = start(grace=0.3)
    running = busy(at, num_inference_steps=50)
    at.stop()
    status, answered, _ = answer(running)
    assert (status, answered["error"]["code"]) == (503, "stopping")
    closed_gate.set()
    at.thread.join(30)
    assert at.metric("denoising_steps_total") == 0


def test_the_probes_report_health_and_readiness(start: Start, closed_gate: threading.Event) -> None:
    at = start(keys=(KEY,), grace=600)
    assert get(at, "/healthz", authorization=None)[:2] == (200, {"status": "ok"})
    assert get(at, "/readyz", authorization=None)[:2] == (200, {"status": "ready"})
    running = busy(at)
    at.engine.close()
    status, answered, _ = get(at, "/readyz", authorization=None)
    assert (status, answered["status"]) == (503, "the server is stopping")
    assert ask(at, body())[0] == 503
    closed_gate.set()
    assert answer(running)[0] == 200


def jobs(*works: tuple[str, int]) -> list[ImageJob]:
    """Return one job per (name of a reward, number of images)."""

    async def make() -> list[ImageJob]:
        return [
            ImageJob(str(i), JobSettings(reward, None, "plain", NullTTAConfig()), "a", "", range(images), timeout=60)
            for i, (reward, images) in enumerate(works)
        ]

    return asyncio.run(make())


def ids(taken: Any) -> list[str]:
    return [job.id for job in taken]


def test_the_oldest_job_is_taken_first_with_equal_ones_as_far_as_they_fit() -> None:
    queue = JobQueue(size=10, batch_size=4, wait=0)
    for job in jobs(("x", 2), ("y", 1), ("x", 3), ("x", 2), ("y", 4)):
        assert queue.put(job)
    assert [ids(queue.take()) for _ in range(4)] == [["0", "3"], ["1"], ["2"], ["4"]]


def test_an_idle_worker_waits_a_moment_for_more_jobs() -> None:
    queue = JobQueue(size=10, batch_size=2, wait=30)
    first, second = jobs(("x", 1), ("x", 1))
    queue.put(first)
    threading.Timer(0.05, queue.put, [second]).start()
    began = time.monotonic()
    assert ids(queue.take()) == ["0", "1"]
    assert time.monotonic() - began < 20


def test_a_closed_queue_hands_back_its_jobs() -> None:
    queue = JobQueue(size=10, batch_size=2, wait=0)
    first, second = jobs(("x", 1), ("x", 1))
    queue.put(first)
    assert ids(queue.close()) == ["0"]
    assert not queue.put(second)
    assert queue.take() == ()


def test_a_cancelled_job_is_never_taken() -> None:
    queue = JobQueue(size=2, batch_size=1, wait=0)
    first, second, third = jobs(("x", 1), ("x", 1), ("x", 1))
    assert queue.put(first)
    assert queue.put(second)
    assert not queue.put(third)
    first.cancel()
    assert queue.put(third)
    assert [ids(queue.take()) for _ in range(2)] == [["1"], ["2"]]
