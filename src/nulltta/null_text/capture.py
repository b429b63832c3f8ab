"""Making null texts from a finished run: what was learnt, how, and the noise that was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.embeddings import transform
from nulltta.algorithm.problem import Problem
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, Outcome, Reward, Step
from nulltta.errors import InvalidValue
from nulltta.models.nag import without_prompt
from nulltta.null_text.exact import RowByRow
from nulltta.null_text.identity import identity
from nulltta.null_text.value import NullText
from nulltta.scoring import greedy
from nulltta.versions import version_of


def null_texts(problem: Problem, outcome: Outcome, trace: Sequence[Step]) -> list[NullText]:
    """Return the null text of each prompt, with everything that its file states."""
    trace = trace[-len(outcome.nulls) :]  # of several passes, the last one drew the images
    timesteps = [step.timestep for step in trace]
    chosen = [step.selected for step in trace[:-1]] + [outcome.selected]  # (B,) per step; at the end the best
    of_model = problem.about or about_model(problem.model, problem.config.num_inference_steps)
    common = about_learnt(problem.reward, problem.config, of_model) | _batch(problem, outcome, trace)
    found = []
    for b, prompt in enumerate(problem.prompts):
        row, latents = partial(_row, b), outcome.initial_latents[b].cpu()
        release = problem.config.conventions == "release"
        seed, candidates = None if release else problem.seeds[b], [int(indices[b]) for indices in chosen]
        drawn = _KeptNoise(seed, timesteps, candidates, problem.config.num_particles, latents.shape)
        found.append(
            NullText(
                timesteps, [transform(without_prompt(null), row) for null in outcome.nulls], prompt,
                transform(without_prompt(problem.null), row),
                {**common, "seed": problem.seeds[b]}, latents,
                [row(noise) for noise in outcome.noise] or drawn,
                outcome.candidates[b, outcome.selected[b]].cpu(),
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class _KeptNoise(Sequence[Tensor]):
    """The noise of the candidates that were kept, T tensors (C, h, w), drawn again when it is read.

    It holds no model and no reward, so that a null text outlives its run cheaply.
    """

    seed: int | None  # None under the conventions "release", whose noise is seeded by the timestep
    timesteps: Sequence[float]
    chosen: Sequence[int]
    particles: int
    shape: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        if self.seed is not None:
            return randomness.of_candidate(self.seed, i, self.chosen[i], self.shape)
        return randomness.of_timestep(self.timesteps[i], self.particles, self.shape)[self.chosen[i]]


def _batch(problem: Problem, outcome: Outcome, trace: Sequence[Step]) -> dict[str, Any]:
    """Return what `BatchLayout` records of a run of one prompt whose candidates went through the networks together."""
    particles, rows = problem.config.num_particles, problem.memory.rows
    together = len(problem.prompts) == 1 and (rows is None or rows >= particles)
    if not together or isinstance(problem.model, RowByRow) or outcome.initial_rewards is None:
        return {}
    chosen = [greedy(outcome.initial_rewards), *(step.selected for step in trace[:-1]), outcome.selected]
    batch = {
        "candidates": particles,
        "joint": not problem.model.predicts_guided
        and all(problem.null[name].shape == tensor.shape for name, tensor in problem.cond.items()),
        "rows": [int(indices[0]) for indices in chosen],
        "inner_steps": [len(step.inner_rewards) for step in trace],
    }
    return {"batch": batch}


def _row(index: int, tensor: Tensor) -> Tensor:
    return tensor[index].cpu()


def about_learnt(reward: Reward, config: NullTTAConfig, of_model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every null text says of how it was learnt, in JSON's types.

    Args:
        reward: the reward that was raised.
        config: the settings.
        of_model: what `about_model` found.
    """
    return {
        **of_model,
        "reward": reward.name,
        "config": asdict(config),
        "versions": {name: version_of(name) for name in ("nulltta", "diffusers", "transformers", "torch")},
        "licence": "",
    }


def about_model(model: GuidedModel, num_inference_steps: int) -> dict[str, Any]:
    """Return what a null text records of a model, in JSON's types.

    It is found before sampling, while the model is what the prompts were encoded with. Where the null branch is in the
    pipeline's calls stays out if it is not known; `NullText.apply` then says why.
    """
    scheduler = model.scheduler
    about: dict[str, Any] = {
        "model": identity(model),
        "model_name": model.name,
        "scheduler": type(scheduler).__name__ if scheduler is not None else None,
    }
    with suppress(InvalidValue):
        if where := model.placement(num_inference_steps):
            about["where"] = where
    return about
