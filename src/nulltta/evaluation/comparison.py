"""Compare aligned with plain sampling of the same prompts from the same noise, also by measures not optimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from nulltta.alignment import Result
from nulltta.contracts import Step
from nulltta.evaluation.measures import Measure
from nulltta.null_text.value import NullText
from nulltta.scoring import named

Role = Literal["target", "component", "held out"]
"""The part of a measure in the run: optimised, a component of what was optimised, or neither."""


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of the two images of a prompt; NaN where the measure does not apply."""

    plain: float
    aligned: float
    role: Role = "held out"

    @property
    def gain(self) -> float:
        """Aligned minus plain."""
        return self.aligned - self.plain


@dataclass(frozen=True)
class Comparison:
    """The aligned and the plain image of one prompt, with their scores.

    Attributes:
        plain, aligned: images (3, H, W) in [0, 1], on the CPU.
        scores: the scores by measure, in the order target, components of a composed target, held-out measures.
        trace: the steps of this prompt, with a batch of one and without previews.
        initial_rewards: (K,), the rewards of the clean estimates of the initial latents.
        null_text: the learnt null text; None if the method learns none.
    """

    prompt: str
    seed: int
    plain: Tensor
    aligned: Tensor
    scores: Mapping[str, Score]
    trace: Sequence[Step]
    initial_rewards: Tensor
    null_text: NullText | None = None

    @property
    def title(self) -> str:
        """The prompt and the seed, which tell it from every other comparison of a run."""
        return f"{self.prompt} (seed {self.seed})"


def compare(result: Result, measures: Mapping[str, Measure] | None = None) -> list[Comparison]:
    """Sample the prompts of a result plainly too, measure both images, and return one `Comparison` per prompt.

    Args:
        result: what `align` returned.
        measures: measures besides the reward; see `held_out_measures`.

    Raises:
        RewardError: if a reward or a measure fails.
        OutOfMemory: if memory runs out.
    """
    prompts = result.problem.prompts
    plain, aligned = result.baseline.detach(), result.images.detach()
    values = _values(result)
    with torch.no_grad():
        for name, measure in (measures or {}).items():
            if name not in values:
                before, after = (named(name, partial(measure, images, prompts)) for images in (plain, aligned))
                values[name] = before, after, "held out"
    initial = result.initial_rewards if result.initial_rewards is not None else torch.empty(len(prompts), 0)
    return [
        Comparison(
            prompt, result.problem.seeds[b], plain[b].cpu(), aligned[b].cpu(),
            {name: Score(float(before[b]), float(after[b]), role) for name, (before, after, role) in values.items()},
            [_of_prompt(step, b) for step in result.trace], initial[b].cpu(),
            result.null_text[b] if result.null_text else None,
        )
        for b, prompt in enumerate(prompts)
    ]  # fmt: skip


@torch.no_grad()
def _values(result: Result) -> dict[str, tuple[Tensor, Tensor, Role]]:
    """Return the plain and the aligned values (B,) of the reward and its components, by name."""
    problem = result.problem
    values: dict[str, tuple[Tensor, Tensor, Role]] = {
        problem.reward.name: (result.baseline_rewards, result.rewards, "target")
    }
    for name, aligned in result.reward_components.items():
        values.setdefault(name, (result.baseline_components[name], aligned, "component"))
    return values


def _of_prompt(step: Step, b: int) -> Step:
    """Return the part of a step that belongs to prompt b."""
    return replace(
        step, inner_rewards=step.inner_rewards[:, b : b + 1], candidate_rewards=step.candidate_rewards[b : b + 1],
        selected=step.selected[b : b + 1], kl=step.kl[b : b + 1], decode_preview=None,
    )  # fmt: skip
