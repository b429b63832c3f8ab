"""From a finished run to its null texts: what was learnt, how, and the noise that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor

from nulltta.algorithm.embeddings import transform
from nulltta.algorithm.problem import Problem
from nulltta.contracts import Outcome, Step
from nulltta.null_text.identity import identity
from nulltta.null_text.row_by_row import RowByRow
from nulltta.null_text.value import NullText
from nulltta.scoring import greedy
from nulltta.versions import version_of


def null_texts(problem: Problem, outcome: Outcome, trace: Sequence[Step]) -> list[NullText]:
    """The null text of each prompt, with everything its file is to say."""
    trace = trace[-len(outcome.nulls) :]  # of several passes, the last is the one that drew the images
    timesteps = [step.timestep for step in trace]
    chosen = [step.selected for step in trace[:-1]] + [outcome.selected]  # (B,) a step; the last one's is the best
    common = _about(problem) | _batch(problem, outcome, trace)
    made = []
    for b, prompt in enumerate(problem.prompts):
        row = partial(_row, b)
        made.append(
            NullText(
                timesteps,
                [transform(null, row) for null in outcome.nulls],
                prompt,
                transform(problem.null, row),
                {**common, "seed": problem.seeds[b]},
                outcome.initial_latents[b].cpu(),
                _Kept(problem, b, [int(indices[b]) for indices in chosen]),
                outcome.candidates[b, outcome.selected[b]].cpu(),
            )
        )
    return made


@dataclass(frozen=True, slots=True)
class _Kept(Sequence[Tensor]):
    """The noise of the candidates that went on, drawn again when asked for: T tensors (C, h, w)."""

    problem: Problem
    row: int
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: Any) -> Any:
        step = self.problem.schedule()[index]
        noise = self.problem.noise(index, step, self.problem.latents[:, 0], self.problem.config.num_particles)
        return noise[self.row, self.chosen[index]].cpu()

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))


def _batch(problem: Problem, outcome: Outcome, trace: Sequence[Step]) -> dict[str, Any]:
    """What `BatchLayout` is to know, of a run of one prompt whose candidates went through the networks together."""
    particles, rows = problem.config.num_particles, problem.memory.rows
    together = len(problem.prompts) == 1 and (rows is None or rows >= particles)
    if not together or isinstance(problem.model, RowByRow) or outcome.initial_rewards is None:
        return {}
    first = greedy(outcome.initial_rewards)
    chosen = [first, *(step.selected for step in trace[:-1]), outcome.selected]
    batch = {
        "candidates": particles,
        "joint": all(problem.null[name].shape == tensor.shape for name, tensor in problem.cond.items()),
        "rows": [int(indices[0]) for indices in chosen],
        "inner_steps": [len(step.inner_rewards) for step in trace],
    }
    return {"batch": batch}


def _row(index: int, tensor: Tensor) -> Tensor:
    return tensor[index].cpu()


def _about(problem: Problem) -> dict[str, Any]:
    scheduler = problem.model.scheduler
    where = problem.model.placement(problem.config.num_inference_steps)
    return {
        "model": identity(problem.model),
        "model_name": problem.model.name,
        "reward": problem.reward.name,
        "config": asdict(problem.config),
        "scheduler": type(scheduler).__name__ if scheduler is not None else None,
        "versions": {name: version_of(name) for name in ("nulltta", "diffusers", "transformers", "torch")},
        "licence": "",
        **({"where": where} if where else {}),
    }
