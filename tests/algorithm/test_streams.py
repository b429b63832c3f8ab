"""Running a method: its steps, its outcome, previews that are decoded when they are read, and leaving it early."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch
from torch import Tensor

from nulltta import NullTTAConfig, Outcome, OutOfMemory, Step
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta, plain
from nulltta.algorithm.streams import MethodRun
from nulltta.alignment import make_problem
from nulltta.testing import Gaussian, nearness

CONFIG = NullTTAConfig(num_inference_steps=3, inner_steps=(1, 1), num_particles=2, guidance_scale=3.0)


class CountingDecoder(Gaussian):
    """Counts the latents that were decoded."""

    decoded = 0

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        self.decoded += len(x0)
        return super().decode(x0, detail)


def problem(model: Gaussian | None = None) -> Problem:
    return make_problem(model or Gaussian(), ["red", "green"], nearness, CONFIG, seed=1)


def test_iterating_yields_each_step_and_keeps_the_trace_and_the_outcome() -> None:
    run = MethodRun(null_tta(problem()))
    seen = list(run)
    assert [step.index for step in seen] == [step.index for step in run.trace] == [0, 1, 2]
    assert run.outcome.candidates.shape == (2, 2, 3, 1, 1)
    torch.testing.assert_close(run.trace[2].candidate_rewards, seen[2].candidate_rewards)
    assert all(step.preview is not None for step in seen)
    assert all(step.preview is None for step in run.trace)


def test_finishing_reports_each_step_and_returns_the_outcome_of_iterating() -> None:
    indices: list[int] = []
    outcome = MethodRun(plain(problem())).finish(lambda step: indices.append(step.index))
    assert indices == [0, 1, 2]
    iterated = MethodRun(plain(problem()))
    assert len(list(iterated)) == 3
    assert torch.equal(outcome.candidates, iterated.outcome.candidates)


def test_a_run_that_is_left_early_and_closed_has_no_outcome_and_ends_its_method() -> None:
    stream = null_tta(problem())
    run = MethodRun(stream)
    for step in run:
        assert step.index == 0
        break
    run.close()
    assert len(run.trace) == 1
    assert not hasattr(run, "outcome")
    with pytest.raises(StopIteration):
        next(stream)


def test_memory_that_runs_out_between_steps_is_an_out_of_memory_error() -> None:
    def method() -> Generator[Step, None, Outcome]:
        yield Step.unscored(0, 1.0, batch=1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    run = MethodRun(method())
    with pytest.raises(OutOfMemory, match="fewer prompts at a time"):
        run.finish()
    assert len(run.trace) == 1


def test_a_preview_is_decoded_when_it_is_first_read_and_only_then() -> None:
    model = CountingDecoder()
    steps = list(MethodRun(plain(problem(model))))
    assert model.decoded == 2  # the images
    first, again = steps[1].preview, steps[1].preview
    assert model.decoded == 4
    assert first is again
    assert first is not None
    assert first.shape == (2, 3, 1, 1)
