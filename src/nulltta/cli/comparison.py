"""Aligned against plain sampling of the same prompts from the same noise, measured by more than was optimised."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nulltta import rewards
from nulltta.alignment import align
from nulltta.config import NullTTAConfig
from nulltta.rewards.compose import parts
from nulltta.types import GuidedModel, NullTTAError, OnStep, Reward, Step

if TYPE_CHECKING:
    from nulltta.world.grammar import Size

Measure = Callable[[Tensor, Sequence[str]], Tensor]
"""(images (B, 3, H, W) in [0, 1], prompts) -> (B,), NaN where it says nothing about a prompt."""


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of the two images of a prompt; NaN where the measure says nothing."""

    plain: float
    aligned: float

    @property
    def gain(self) -> float:
        return self.aligned - self.plain


@dataclass(frozen=True)
class Comparison:
    """One prompt, sampled both ways.

    Attributes:
        plain, aligned: images (3, H, W) in [0, 1], on the CPU.
        scores: by measure, the target first.
        trace: this prompt's steps: B is 1, without previews.
        initial_rewards: (K,), of the clean estimates of the initial latents.
    """

    prompt: str
    seed: int
    plain: Tensor
    aligned: Tensor
    scores: Mapping[str, Score]
    trace: Sequence[Step]
    initial_rewards: Tensor


def compare(
    model: GuidedModel,
    prompts: Sequence[str],
    reward: Reward,
    *,
    measures: Mapping[str, Measure] | None = None,
    config: NullTTAConfig | None = None,
    seed: int | Sequence[int] = 0,
    negative_prompt: str = "",
    guard: Reward | None = None,
    on_step: OnStep | None = None,
) -> list[Comparison]:
    """Align a batch, sample it plainly too, and measure both: one `Comparison` a prompt, in order.

    measures: more of them besides the target; see `held_out_measures`.

    Raises:
        NullTTAError: as `align` does.
    """
    result = align(
        model, prompts, reward, config=config, seed=seed, negative_prompt=negative_prompt, guard=guard, on_step=on_step
    )
    plain, aligned = result.baseline.detach(), result.images.detach()
    scores = {reward.name: (result.baseline_rewards, result.rewards)}
    with torch.no_grad():
        for name, measure in (measures or {}).items():
            scores.setdefault(name, (measure(plain, prompts), measure(aligned, prompts)))
    initial = result.initial_rewards if result.initial_rewards is not None else torch.empty(len(prompts), 0)
    return [
        Comparison(
            prompt, result.problem.seeds[b], plain[b].cpu(), aligned[b].cpu(),
            {name: Score(float(before[b]), float(after[b])) for name, (before, after) in scores.items()},
            [_of_prompt(step, b) for step in result.trace], initial[b].cpu(),
        )
        for b, prompt in enumerate(prompts)
    ]  # fmt: skip


def held_out_measures(model: GuidedModel, reward: Reward, guard: Reward | None = None) -> dict[str, Measure]:
    """What else to measure, by name: a sum's parts, the guard, and, for the embedded model, `clip-b`, which is never
    a target of ours, and the judge's share of the prompt's facts."""
    measures: dict[str, Measure] = {}
    measures |= {name: part for name, part in parts(reward).items() if name != reward.name}
    if guard is not None:
        measures[guard.name] = guard
    if model.name == "embedded":
        measures |= {"clip-b": rewards.load("clip-b"), "facts": facts()}
    return measures


def facts() -> Measure:
    """The embedded judge as a measure: the share of a prompt's facts that an image shows, NaN for a prompt outside
    the grammar, which states none."""
    from nulltta.world.judge import load_judge

    judge = load_judge()

    def measure(images: Tensor, prompts: Sequence[str]) -> Tensor:
        shares = torch.full((len(prompts),), math.nan)
        for b, prompt in enumerate(prompts):
            if _states_facts(prompt, judge.size):
                shares[b] = judge.facts(images[b : b + 1], [prompt])[0]
        return shares

    return measure


def _states_facts(prompt: str, size: Size) -> bool:
    from nulltta.world.grammar import parse

    try:
        parse(prompt, size)
    except NullTTAError:
        return False
    return True


def _of_prompt(step: Step, b: int) -> Step:
    return replace(
        step, inner_rewards=step.inner_rewards[:, b : b + 1], candidate_rewards=step.candidate_rewards[b : b + 1],
        selected=step.selected[b : b + 1], kl=step.kl[b : b + 1], preview=None,
    )  # fmt: skip
