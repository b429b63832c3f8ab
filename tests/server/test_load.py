"""The statistics of the load test, on a real server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from studies import load

from .serving import KEY, Running


def test_throughput_latency_and_memory_are_measured(start: Callable[..., Running]) -> None:
    at = start(keys=(KEY,))
    server = load.Server(at.url, KEY)
    level = load.serve_level(server, clients=3, requests=7)
    assert (level.clients, level.requests, level.lost) == (3, 7, 0)
    assert 1 <= level.images_per_batch <= 3
    assert 0 < level.median <= level.p95
    assert 7 / level.images_per_second >= level.p95
    assert at.metric("images_total", method="null-tta") == 7
    memory = load.resident_over(server, requests=3, every=2)
    assert len(memory) == 3
    assert 50 < memory[0] < 100_000
    about = {
        "date": str(date(2026, 1, 2)),
        "command": "it",
        "model": "tiny",
        "settings": {"a": 1},
        "cores": 2,
        "busy": 0.5,
    }
    table = load.markdown([level], memory, about).splitlines()
    assert table[2].startswith("| 3 | 7 | 0 | ")
    assert "model tiny, a 1; 2 cores" in table[4]


def test_a_refused_request_counts_as_lost(start: Callable[..., Running]) -> None:
    at = start(max_steps=3, defaults={"num_inference_steps": 3})  # the load test asks for four
    with at.client() as client:
        assert load._timed(client, "a") is None
