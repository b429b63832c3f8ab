"""Resampling of weighted particles: normalised weights (N,) -> N ancestors, on average N·w_n copies of the n-th."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Resampling: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""(normalised weights (N,) in float64, generator) -> ancestors (N,)."""


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Return (Σw)²/Σw² (Kong, 1992), between 1 and N, for log w (..., N): (...)."""
    return 1 / log_weights.softmax(-1).square().sum(-1)


def multinomial(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw N ancestors independently."""
    return torch.multinomial(weights, len(weights), replacement=True, generator=generator)


def systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Take the ancestors at (u + n)/N with one u ~ U[0, 1) (Kitagawa, 1996): each count is ⌊N·w⌋ or ⌈N·w⌉."""
    N = len(weights)
    teeth = (torch.arange(N) + torch.rand(1, generator=generator, dtype=torch.float64)) / N
    return torch.searchsorted(weights.cumsum(0), teeth, right=True).clamp(max=N - 1)


def ssp(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Sample by the Srinivasan process (Gerber, Chopin and Whiteley, 2019, algorithm 3): counts are ⌊N·w⌋ or ⌈N·w⌉.

    The fractions of N·w are compared in pairs: one of the two becomes a whole number, their sum and expectations are
    kept, and the other is compared with the next.
    """
    N = len(weights)
    counts = (N * weights).floor()
    fractions = (N * weights - counts).tolist()
    chances = torch.rand(N, generator=generator, dtype=torch.float64).tolist()
    open_, rest = 0, fractions[0]
    for n in range(1, N):
        total = rest + fractions[n]
        if total < 1:  # one of them becomes their sum, the other 0
            open_ = open_ if chances[n] * total < rest else n
            rest = total
        else:  # one of them becomes 1, the other the remainder
            raised = open_ if chances[n] * (2 - total) < 1 - fractions[n] else n
            counts[raised] += 1
            open_, rest = (n if raised == open_ else open_), total - 1
    counts[open_] += round(rest)  # 0 or 1, up to rounding
    return torch.arange(N).repeat_interleave(counts.long())


RESAMPLING: Mapping[str, Resampling] = {"multinomial": multinomial, "systematic": systematic, "ssp": ssp}
"""The resampling schemes by name."""


def resampled(
    log_weights: Tensor,
    carried: Sequence[Tensor],
    scheme: Resampling,
    threshold: float | None,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, list[Tensor]]:
    """Resample the prompts whose effective sample size is below threshold·N, or all; their weights become equal.

    Args:
        log_weights: (B, N).
        carried: everything that belongs to the particles, (B, N, ...) each, which is taken from their ancestors.
        scheme: the resampling.
        threshold: a share of N; None resamples all.
        generators: one per prompt.

    Returns:
        The new log weights and `carried`.
    """
    N = log_weights.shape[1]
    if threshold is None:
        low = torch.ones(len(log_weights), dtype=torch.bool)
    else:  # with equal weights the effective sample size is N up to rounding
        low = effective_sample_size(log_weights) < threshold * N * (1 - 1e-9)
    ancestors = torch.arange(N).repeat(len(log_weights), 1)
    for b in low.nonzero().flatten().tolist():
        ancestors[b] = scheme(log_weights[b].softmax(0), generators[b])
    rows = torch.arange(len(log_weights))[:, None]
    log_weights = torch.where(low[:, None], torch.zeros_like(log_weights), log_weights)
    return log_weights, [values[rows.to(values.device), ancestors.to(values.device)] for values in carried]
