"""A run that reports its progress after every denoising step and can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from nulltta.algorithm.budget import planned_for
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.streams import MethodRun
from nulltta.alignment import METHODS, as_result
from nulltta.config import NullTTAConfig
from nulltta.contracts import Outcome, Step
from nulltta.errors import InvalidValue
from nulltta.evaluation.comparison import Comparison, compare
from nulltta.evaluation.evidence import Features
from nulltta.evaluation.measures import vendi_score
from nulltta.runs.request import AlignRequest, RunSettings
from nulltta.ui.engine import PageEngine, PreparedRun


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The progress of a run after a denoising step.

    Attributes:
        trace: the steps so far, without previews.
        preview: (B, 3, H, W), the clean estimates of the selected candidates.
        counts: the planned inner steps of each denoising step.
        share: the share of the work that is done, from 0 to 1; plain sampling and scoring are part of it.
        seconds_left: the estimated time until the result is shown.
        notes: what the visitor should know: words that the model does not know, a prompt that was cut.
    """

    trace: Sequence[Step]
    preview: Tensor
    counts: Sequence[int]
    share: float
    seconds_left: float
    notes: Sequence[str]


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
        notes: what the visitor should know.
        diversity: by prompt, where several pictures of it were made: the Vendi scores of the plain and of the aligned
            pictures, the effective number of different ones.
    """

    request: AlignRequest
    comparisons: Sequence[Comparison]
    candidates: Tensor
    candidate_rewards: Tensor
    stopped_after: int | None
    seconds: float
    notes: Sequence[str] = ()
    diversity: Mapping[str, tuple[float, float]] = field(default_factory=dict)


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
        prepared = self._engine.prepare(self._request)
        loaded = prepared.loaded
        request = replace(self._request, settings=loaded.settings)
        outcome, trace, stopped = yield from _until(self._stop, prepared)
        comparisons = compare(as_result(prepared.problem, outcome, trace), loaded.measures)
        self.finished = FinishedRun(
            request, comparisons, outcome.candidates.cpu(), outcome.rewards.cpu(), len(trace) if stopped else None,
            time.perf_counter() - began, prepared.notes, diversity(comparisons, prepared.features),
        )  # fmt: skip


def warm_up(engine: PageEngine) -> None:
    """Make a short run of the first model, so that the page knows from the start how long runs take."""
    config = NullTTAConfig.preset(engine.models[0], num_inference_steps=8, inner_steps=(1, 2))
    settings = RunSettings(config=config, model=engine.models[0], reward=engine.reward)
    for _ in PageRun(engine, AlignRequest(prompts=["a fox"], settings=settings), threading.Event()):
        pass


@torch.no_grad()
def diversity(comparisons: Sequence[Comparison], features: Features) -> dict[str, tuple[float, float]]:
    """Return the Vendi scores of the plain and of the aligned pictures of each prompt that has several."""
    found: dict[str, tuple[float, float]] = {}
    for prompt in dict.fromkeys(comparison.prompt for comparison in comparisons):
        group = [comparison for comparison in comparisons if comparison.prompt == prompt]
        if len(group) > 1:
            images = torch.stack([c.plain for c in group] + [c.aligned for c in group])  # (2N, [F,] 3, H, W)
            seen = features(images.flatten(0, -4)).float().cpu().view(2 * len(group), -1)
            plain, aligned = functional.normalize(seen, dim=-1).double().view(2, len(group), -1).numpy()
            found[prompt] = vendi_score(plain), vendi_score(aligned)
    return found


def _until(
    stop: threading.Event, prepared: PreparedRun
) -> Generator[RunProgress, None, tuple[Outcome, list[Step], bool]]:
    """Yield the progress of the method; return its outcome, its trace, and whether it was stopped."""
    problem, pace = prepared.problem, prepared.pace
    counts, prompts = planned_for(problem), len(problem.prompts)
    best, began = _BestSoFar(problem), time.perf_counter()
    with closing(MethodRun(METHODS["null-tta"](problem), problem)) as method_run:
        if not stop.is_set():
            last = began
            for taken, step in enumerate(method_run, start=1):
                preview, now = best.update(step), time.perf_counter()
                pace.observe(now - last, problem.config, prompts, counts[taken - 1])
                expected = pace.of_steps(problem.config, prompts)
                left = sum(expected[taken:])
                share = (now - began) / (now - began + left)
                yield RunProgress(list(method_run.trace), preview, counts, share, left, prepared.notes)
                last = time.perf_counter()
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
