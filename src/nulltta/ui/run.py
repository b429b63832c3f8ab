"""A run that reports its progress after every denoising step and can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nulltta.algorithm.budget import by_step
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.streams import MethodRun
from nulltta.alignment import METHODS, as_result
from nulltta.contracts import Outcome, Step
from nulltta.errors import InvalidValue
from nulltta.evaluation.comparison import Comparison, compare
from nulltta.runs.request import AlignRequest
from nulltta.ui.engine import PageEngine


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The progress of a run after a denoising step.

    Attributes:
        trace: the steps so far, without previews.
        preview: (B, 3, H, W), the clean estimates of the selected candidates.
        steps: the number of denoising steps, T.
        seconds_left: the estimated time until the aligned images are finished; plain sampling follows.
    """

    trace: Sequence[Step]
    preview: Tensor
    steps: int
    seconds_left: float


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """The result of a run.

    Attributes:
        request: the request, with all defaults filled in.
        comparisons: one per prompt.
        candidates: (B, K, 3, H, W), those of the last step; of a stopped run, the best clean estimate alone.
        candidate_rewards: (B, K), their rewards.
        stopped_after: the number of denoising steps after which the run was stopped; None if it was not.
        seconds: the time from the first step to the last measurement.
    """

    request: AlignRequest
    comparisons: Sequence[Comparison]
    candidates: Tensor
    candidate_rewards: Tensor
    stopped_after: int | None
    seconds: float


class PageRun:
    """A run that aligns, samples plainly, and measures both.

    Iterating it yields the progress after each denoising step. After `stop` is set, no further step begins, and the
    result is the clean estimate of the highest reward so far, per prompt.

    Args:
        engine: the models and rewards.
        request: what to sample.
        stop: the signal to stop.

    Attributes:
        finished: the result; set at the end of the iteration.

    Raises:
        InvalidValue: while iterating, if the request is invalid or asks for what is not offered, or if the run was
            stopped before its first step.
        LoadError: while iterating, if a model or reward does not load.
        RewardError: while iterating, as `nulltta.align` does.
        OutOfMemory: while iterating, if memory runs out.
    """

    finished: FinishedRun

    def __init__(self, engine: PageEngine, request: AlignRequest, stop: threading.Event) -> None:
        self._engine, self._request, self._stop = engine, request, stop

    def __iter__(self) -> Iterator[RunProgress]:
        began = time.perf_counter()
        loaded, problem = self._engine.prepare(self._request)
        request = replace(self._request, settings=loaded.settings)
        outcome, trace, stopped = yield from _until(self._stop, problem)
        result = as_result(problem, outcome, trace)
        self.finished = FinishedRun(
            request, compare(result, loaded.measures), outcome.candidates.cpu(), outcome.rewards.cpu(),
            len(trace) if stopped else None, time.perf_counter() - began,
        )  # fmt: skip


def _until(stop: threading.Event, problem: Problem) -> Generator[RunProgress, None, tuple[Outcome, list[Step], bool]]:
    """Yield the progress of the method; return its outcome, its trace, and whether it was stopped."""
    work, best, began = by_step(problem.config), _BestSoFar(problem), time.perf_counter()
    with closing(MethodRun(METHODS["null-tta"](problem), problem)) as method_run:
        if not stop.is_set():
            for step in method_run:
                preview = best.update(step)
                done = sum(work[: len(method_run.trace)])
                seconds_left = (time.perf_counter() - began) * (sum(work) / done - 1)
                yield RunProgress(list(method_run.trace), preview, len(work), seconds_left)
                if stop.is_set():
                    break
            else:
                return method_run.outcome, method_run.trace, False
        return best.outcome(), method_run.trace, True


class _BestSoFar:
    """The clean estimate of the highest reward so far, per prompt."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.images: Tensor | None = None
        self.rewards = torch.full((len(problem.prompts),), -torch.inf)

    def update(self, step: Step) -> Tensor:
        """Take note of a step and return its preview."""
        assert step.preview is not None
        rewards = step.selected_rewards
        better = rewards > self.rewards
        images = step.preview if self.images is None else self.images
        shape = (-1, *[1] * (images.dim() - 1))
        self.images = torch.where(better.to(images.device).view(shape), step.preview, images)
        self.rewards = torch.where(better, rewards, self.rewards)
        return step.preview

    def outcome(self) -> Outcome:
        """Return the outcome of a run that ended in these images, starting from the first initial latent per seed."""
        if self.images is None:
            raise InvalidValue("stopped before the first denoising step: there is nothing to keep")
        first = torch.zeros(len(self.rewards), dtype=torch.long)
        return Outcome(self.images[:, None], self.rewards[:, None], first, self.problem.latents[:, 0])
