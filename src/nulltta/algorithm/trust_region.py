"""A bound on how far φ' may move the distribution of a denoising step (`kl_target`; docs/method.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import is_free, take, where
from nulltta.algorithm.objective import Objective
from nulltta.contracts import Embedding

PROJECTIONS = 3
"""The most denoiser branches per prompt and denoising step that a projection takes."""
AIM = 0.95
"""The share of the bound that a projection aims at, so that one or two of them end within it."""


@torch.no_grad()
def within(
    objective: Objective, null: Embedding, eps: Tensor, kl_target: float
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Move each φ' on the straight line to φ until its divergence is at most the target.

    Near φ the divergence grows with the square of the distance, so that φ + r·(φ' − φ) with r = √(target/divergence)
    meets the target; where the model is far from linear, this is repeated, and in the end φ' is set to φ. Prompts
    within the target keep their φ', and no prompt sees another's.

    Args:
        objective: J of B prompts at a denoising step.
        null: φ', first dimension B.
        eps: ε(x_t, φ'), (B, C, h, w).
        kl_target: the bound in nats.

    Returns:
        The new φ', its ε(x_t, φ'), and its divergence (B,) in nats.
    """
    null, eps, spent = dict(null), eps.clone(), objective.divergence(eps)
    for _ in range(PROJECTIONS):
        rows = (spent > kl_target).nonzero().flatten()
        if not len(rows):
            break
        part = objective.at(rows)
        nearer = _between(part.null, take(null, rows), (AIM * kl_target / spent[rows]).sqrt())
        null = {name: value.index_copy(0, rows, nearer[name]) for name, value in null.items()}
        eps[rows] = part.model.predict(part.x, part.step, nearer)
        spent[rows] = part.divergence(eps[rows])
    beyond = spent > kl_target
    null = where(beyond, objective.null, null)
    eps = torch.where(beyond.view(-1, *[1] * (eps.dim() - 1)), objective.eps_null, eps)
    return null, eps, spent.masked_fill(beyond, 0.0)


def _between(start: Embedding, end: Embedding, ratio: Tensor) -> dict[str, Tensor]:
    """Return start + ratio·(end − start), with one ratio (B,) per prompt."""
    return {
        name: start[name] + ratio.view(-1, *[1] * (value.dim() - 1)) * (value - start[name])
        if is_free(value)
        else value
        for name, value in end.items()
    }
