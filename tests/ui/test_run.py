"""Runs on the page: progress, stopping and limits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, NullTTAError
from nulltta.runs.request import AlignRequest
from nulltta.ui.engine import MAX_PROMPTS, PageEngine
from nulltta.ui.run import PageRun

RequestOf = Callable[..., AlignRequest]


def test_a_page_shows_every_step_of_the_run_that_align_makes(engine: PageEngine, request_of: RequestOf) -> None:
    asked = request_of(prompts=["a cat", "a dog"])
    page_run = PageRun(engine, asked, threading.Event())
    seen = list(page_run)
    finished = page_run.finished
    shared = asked.settings
    result = nulltta.align(
        engine.model(shared.model), asked.prompts, "brightness", config=shared.config, seed=asked.seed
    )
    assert [len(progress.trace) for progress in seen] == [1, 2, 3]
    assert all(torch.equal(p.trace[-1].candidate_rewards, s.candidate_rewards)
               for p, s in zip(seen, result.trace, strict=True))  # fmt: skip
    assert seen[0].preview.shape == result.images.shape
    assert not torch.equal(seen[0].preview, seen[1].preview)
    assert [c.aligned.tolist() for c in finished.comparisons] == result.images.tolist()
    assert [c.plain.tolist() for c in finished.comparisons] == result.baseline.tolist()
    assert torch.equal(finished.candidates, result.candidates)
    assert finished.stopped_after is None
    assert all(comparison.null_text for comparison in finished.comparisons)


def test_time_left_falls_with_the_work_done(engine: PageEngine, request_of: RequestOf) -> None:
    seen = list(PageRun(engine, request_of(), threading.Event()))
    assert seen[0].seconds_left > 0
    assert seen[-1].seconds_left == 0


def test_stop_keeps_each_prompts_best_clean_estimate(engine: PageEngine, request_of: RequestOf) -> None:
    stop, seen = threading.Event(), []
    page_run = PageRun(engine, request_of(prompts=["a cat", "a dog"]), stop)
    for progress in page_run:
        seen.append(progress)
        if len(seen) == 2:
            stop.set()
    finished = page_run.finished
    assert finished.stopped_after == 2
    rewards = torch.stack([s.candidate_rewards.gather(1, s.selected[:, None])[:, 0] for s in seen[-1].trace])  # (2, B)
    best = rewards.argmax(0)
    for b, comparison in enumerate(finished.comparisons):
        assert torch.equal(comparison.aligned, seen[int(best[b])].preview[b])
        assert comparison.scores["brightness"].aligned == pytest.approx(float(rewards[best[b], b]))
        assert comparison.null_text is None
        assert len(comparison.trace) == 2


def test_a_run_stopped_before_its_first_step_keeps_nothing(engine: PageEngine, request_of: RequestOf) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(NullTTAError, match="nothing to keep"):
        list(PageRun(engine, request_of(), stop))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompts": ["a cat"] * (MAX_PROMPTS + 1)}, "too many"), ({"prompts": ["a" * 5000]}, "too long"),
        ({"model": "/etc"}, "not offered"), ({"reward": "os:system"}, "not offered"),
        ({"config": NullTTAConfig(num_inference_steps=10**9)}, "num_inference_steps must be 1000 at most"),
        ({"config": NullTTAConfig(num_particles=100_000)}, "num_particles must be 64 at most"),
        ({"config": NullTTAConfig(inner_steps=(1, 10**9))}, "inner_steps must be 1000 at most"),
        ({"config": NullTTAConfig(num_inference_steps=1000, inner_steps=(900, 900))}, "evaluations are too many"),
    ],
)  # fmt: skip
def test_requests_beyond_the_offer_or_the_limits_are_refused_before_sampling(
    engine: PageEngine, request_of: RequestOf, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(NullTTAError, match=says):
        list(PageRun(engine, request_of(**changes), threading.Event()))


def test_a_page_that_cannot_sample_does_not_start(checkpoint: Path) -> None:
    with pytest.raises(NullTTAError, match="unknown model"):
        PageEngine(["no such model"], "brightness", device="cpu")
    with pytest.raises(NullTTAError, match="did you mean 'clip'"):
        PageEngine([str(checkpoint)], "clipp", device="cpu")
