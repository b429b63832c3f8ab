"""Aligned against plain sampling of the same prompts from the same noise, measured by more than was optimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from nulltta.alignment import Result
from nulltta.contracts import Step
from nulltta.evaluation.measures import Measure
from nulltta.null_text.value import NullText
from nulltta.scoring import score

Role = Literal["target", "component", "guard", "held out"]
"""What a measure was to the run: raised, a part of what was raised, watched, or neither."""


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of the two images of a prompt; NaN where the measure says nothing."""

    plain: float
    aligned: float
    role: Role = "held out"

    @property
    def gain(self) -> float:
        return self.aligned - self.plain


@dataclass(frozen=True)
class Comparison:
    """One prompt, sampled both ways.

    Attributes:
        plain, aligned: images (3, H, W) in [0, 1], on the CPU.
        scores: by measure: the target, its components if it is composed, the guard, those held out.
        trace: this prompt's steps: B is 1, without previews.
        initial_rewards: (K,), of the clean estimates of the initial latents.
        null_text: what was learnt, where the method learns any.
    """

    prompt: str
    seed: int
    plain: Tensor
    aligned: Tensor
    scores: Mapping[str, Score]
    trace: Sequence[Step]
    initial_rewards: Tensor
    null_text: NullText | None = None


def compare(result: Result, measures: Mapping[str, Measure] | None = None) -> list[Comparison]:
    """Sample what `align` aligned plainly too, and measure both: one `Comparison` per prompt, in order.

    Args:
        result: what `align` returned.
        measures: more measures besides the reward and the guard; see `held_out_measures`.

    Raises:
        NullTTAError: if a reward or a measure fails, or memory runs out.
    """
    prompts = result.problem.prompts
    plain, aligned = result.baseline.detach(), result.images.detach()
    values = _values(result)
    with torch.no_grad():
        for name, measure in (measures or {}).items():
            if name not in values:
                values[name] = measure(plain, prompts), measure(aligned, prompts), "held out"
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
    """(B,) plain and aligned, of what the run itself knows of, by name."""
    problem = result.problem
    values: dict[str, tuple[Tensor, Tensor, Role]] = {
        problem.reward.name: (result.baseline_rewards, result.rewards, "target")
    }
    for name, aligned in result.reward_components.items():
        values.setdefault(name, (result.baseline_components[name], aligned, "component"))
    if (guard := problem.guard) is not None and guard.name not in values:
        before, after = (score(guard, images, problem.prompts) for images in (result.baseline, result.images))
        values[guard.name] = before, after, "guard"
    return values


def _of_prompt(step: Step, b: int) -> Step:
    return replace(
        step, inner_rewards=step.inner_rewards[:, b : b + 1], candidate_rewards=step.candidate_rewards[b : b + 1],
        selected=step.selected[b : b + 1], kl=step.kl[b : b + 1], decode_preview=None,
    )  # fmt: skip
