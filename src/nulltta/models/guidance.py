"""How pipelines combine the denoiser's two branches: a short table, and which entry a recording obeys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, float], Tensor]
"""(null, cond, scale) -> the guided prediction, all in the scheduler's layout of latents."""


def plain(null: Tensor, cond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598), a scale of 1 being no guidance."""
    return null + scale * (cond - null)


def from_zero(null: Tensor, cond: Tensor, scale: float) -> Tensor:
    """The same with a scale of 0 being no guidance."""
    return cond + scale * (cond - null)


def rescaled(null: Tensor, cond: Tensor, scale: float) -> Tensor:
    """Plain guidance, brought to the conditional prediction's norm over the last dimension."""
    mixed = plain(null, cond, scale)
    ratio: Tensor = cond.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True)
    return mixed * ratio


RULES: Mapping[str, Rule] = {"plain": plain, "from zero": from_zero, "rescaled": rescaled}


def name_of(null: Tensor, cond: Tensor, scale: float, guided: Tensor) -> tuple[str, int] | None:
    """The rule that makes `guided` of the two branches, and its sign; None if none does."""
    tolerance = 1e-4 if guided.dtype == torch.float32 else 5e-2
    for name, rule in RULES.items():
        ours = rule(null.float(), cond.float(), scale)
        for sign in (1, -1):
            if torch.allclose(sign * ours, guided.float(), rtol=tolerance, atol=tolerance):
                return name, sign
    return None
