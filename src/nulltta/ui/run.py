"""A run as the page follows it: how far it is, what it sees, and in the end what came of it, stopped or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nulltta.algorithm.budget import by_step
from nulltta.algorithm.problem import Problem
from nulltta.alignment import METHODS, as_result, recorded
from nulltta.contracts import Outcome, Step
from nulltta.errors import InvalidValue
from nulltta.evaluation.comparison import Comparison, compare
from nulltta.runs.request import AlignRequest
from nulltta.ui.engine import Engine


@dataclass(frozen=True, slots=True)
class Progress:
    """After a denoising step.

    Attributes:
        trace: the steps so far, without previews.
        preview: (B, 3, H, W), the clean estimates that went on.
        steps: T.
        seconds_left: of the aligned pictures; the plain ones come after.
    """

    trace: Sequence[Step]
    preview: Tensor
    steps: int
    seconds_left: float


@dataclass(frozen=True, eq=False)
class Finished:
    """What came of a run.

    Attributes:
        candidates: (B, K, 3, H, W), the last step's; of a stopped run, the best clean estimate alone.
        candidate_rewards: (B, K), theirs.
        stopped_after: denoising steps, if it was stopped.
        seconds: from the first step to the last measure.
    """

    request: AlignRequest
    comparisons: Sequence[Comparison]
    candidates: Tensor
    candidate_rewards: Tensor
    stopped_after: int | None
    seconds: float


def run(engine: Engine, request: AlignRequest, stop: threading.Event) -> Generator[Progress, None, Finished]:
    """Align, then sample plainly and measure both. After `stop` no further step begins, and what is kept is the best so
    far: each prompt's clean estimate of the highest reward.

    Raises:
        NullTTAError: as `align` does, or it was stopped before there was anything to keep.
    """
    began = time.perf_counter()
    loaded, problem = engine.posed(request)
    request = replace(request, settings=loaded.settings)
    outcome, trace, stopped = yield from _until(stop, problem)
    result = as_result(problem, outcome, trace)
    return Finished(
        request, compare(result, loaded.measures), outcome.candidates.cpu(), outcome.rewards.cpu(),
        len(trace) if stopped else None, time.perf_counter() - began,
    )  # fmt: skip


def _until(
    stop: threading.Event, problem: Problem, now: Callable[[], float] = time.perf_counter
) -> Generator[Progress, None, tuple[Outcome, list[Step], bool]]:
    """The method's steps: its outcome, its trace, and whether it was stopped."""
    work, best, began = by_step(problem.config), _Best(problem), now()
    with closing(recorded(METHODS["null-tta"](problem))) as steps:
        while not stop.is_set():
            try:
                step = next(steps)
            except StopIteration as end:
                outcome, trace = end.value
                return outcome, trace, False
            preview = best.see(step)
            done = sum(work[: len(best.trace)])
            yield Progress(list(best.trace), preview, len(work), (now() - began) * (sum(work) / done - 1))
    return best.outcome(), best.trace, True


class _Best:
    """Each prompt's clean estimate of the highest reward so far."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.trace = problem, list[Step]()
        self.images: Tensor | None = None
        self.rewards = torch.full((len(problem.prompts),), -torch.inf)

    def see(self, step: Step) -> Tensor:
        """The step's preview."""
        assert step.preview is not None
        rewards = step.selected_rewards
        better = rewards > self.rewards
        images = step.preview if self.images is None else self.images
        shape = (-1, *[1] * (images.dim() - 1))
        self.images = torch.where(better.to(images.device).view(shape), step.preview, images)
        self.rewards = torch.where(better, rewards, self.rewards)
        self.trace.append(replace(step, preview=None))
        return step.preview

    def outcome(self) -> Outcome:
        """As if the run had ended in these images; plain sampling then starts from each seed's first latent."""
        if self.images is None:
            raise InvalidValue("stopped before the first denoising step: there is nothing to keep")
        first = torch.zeros(len(self.rewards), dtype=torch.long)
        return Outcome(self.images[:, None], self.rewards[:, None], first, self.problem.latents[:, 0])
