"""How pipelines combine the denoiser's two branches: a short table, and which entries a recording obeys."""

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
    return mixed * _ratio(cond, mixed)


def rescaled_down(null: Tensor, cond: Tensor, scale: float) -> Tensor:
    """Plain guidance, of at most the conditional prediction's norm over the last dimension."""
    mixed = plain(null, cond, scale)
    return mixed * _ratio(cond, mixed).clamp(max=1)


def first_three(null: Tensor, cond: Tensor, scale: float) -> Tensor:
    """Plain guidance of the first three channels only; the others are the conditional prediction's."""
    return torch.cat([plain(null[:, :3], cond[:, :3], scale), cond[:, 3:]], dim=1)


def _ratio(cond: Tensor, mixed: Tensor) -> Tensor:
    found: Tensor = cond.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True)
    return found


RULES: Mapping[str, Rule] = {
    "plain": plain,
    "from zero": from_zero,
    "rescaled": rescaled,
    "rescaled down": rescaled_down,
    "first three": first_three,
}
ELEMENTWISE = ("plain", "from zero")
"""The rules that are the same in every layout of latents."""


def names_of(null: Tensor, cond: Tensor, scale: float, guided: Tensor) -> set[tuple[str, int]]:
    """Return the rules that make `guided` of the two branches, each with its sign."""
    tolerance = 1e-4 if guided.dtype == torch.float32 else 5e-2
    found = set()
    for name, rule in RULES.items():
        ours = rule(null.float(), cond.float(), scale)
        for sign in (1, -1):
            if torch.allclose(sign * ours, guided.float(), rtol=tolerance, atol=tolerance):
                found.add((name, sign))
    return found
