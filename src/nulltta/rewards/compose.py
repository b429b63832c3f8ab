"""Rewards made of others; what they make is a `Reward` again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nulltta.types import NullTTAError, Reward


class Custom:
    """Any callable (images (B, 3, H, W) in [0, 1], prompts) -> (B,) as a `Reward`.

    It is taken to be differentiable unless its attribute `differentiable` is false; one that turns out not to be
    is reported when its gradient is asked for.
    """

    def __init__(self, function: Callable[[Tensor, Sequence[str]], Tensor], name: str) -> None:
        self.function = function
        self.name = name
        self.differentiable = bool(getattr(function, "differentiable", True))

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.function(images, prompts)


class WeightedSum:
    """Σ w·R: differentiable where every part is.

    Each part keeps its own scale; see `parts` for their values one by one.
    """

    def __init__(self, terms: Sequence[tuple[float, Reward]]) -> None:
        if not terms:
            raise NullTTAError("a sum of rewards needs at least one")
        self.terms = list(terms)
        self.name = " + ".join(f"{weight:g}*{reward.name}" for weight, reward in terms).replace("+ -", "- ")
        self.differentiable = all(reward.differentiable for _, reward in terms)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        weights = [weight for weight, _ in self.terms]
        return torch.stack([w * value for w, value in zip(weights, self.values(images, prompts), strict=True)]).sum(0)

    def values(self, images: Tensor, prompts: Sequence[str]) -> list[Tensor]:
        """Each part's own (B,), without its weight."""
        return [reward(images, prompts) for _, reward in self.terms]
