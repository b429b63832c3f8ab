"""What images are measured by besides the reward that was optimised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nulltta import rewards
from nulltta.contracts import GuidedModel
from nulltta.errors import NullTTAError

if TYPE_CHECKING:
    from nulltta.embedded.grammar import Size

Measure = Callable[[Tensor, Sequence[str]], Tensor]
"""(images (B, 3, H, W) in [0, 1], prompts) -> (B,), NaN where it says nothing about a prompt."""


def held_out_measures(model: GuidedModel, device: torch.device | str | None = None) -> dict[str, Measure]:
    """What else to measure, by name, that is never a target of ours: for the embedded model `clip-b` and the judge's
    share of the prompt's facts."""
    return {"clip-b": rewards.load("clip-b", device=device), "facts": facts()} if model.name == "embedded" else {}


def facts() -> Measure:
    """The embedded judge as a measure: the share of a prompt's facts that an image shows, NaN for a prompt outside
    the grammar, which states none."""
    from nulltta.embedded.judge import load_judge

    judge = load_judge()

    def measure(images: Tensor, prompts: Sequence[str]) -> Tensor:
        shares = torch.full((len(prompts),), math.nan)
        for b, prompt in enumerate(prompts):
            if _states_facts(prompt, judge.size):
                shares[b] = judge.facts(images[b : b + 1], [prompt])[0]
        return shares

    return measure


def _states_facts(prompt: str, size: Size) -> bool:
    from nulltta.embedded.grammar import parse

    try:
        parse(prompt, size)
    except NullTTAError:
        return False
    return True
