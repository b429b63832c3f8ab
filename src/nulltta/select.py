"""Which candidate goes on: (scores (B, K), generators) -> indices (B,)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nulltta.types import Selector


def greedy(scores: Tensor, generators: Sequence[torch.Generator] = ()) -> Tensor:  # noqa: ARG001 - draws nothing
    """The best of each row; a tie goes to the first, NaN loses to everything."""
    ranked = torch.where(torch.isnan(scores), torch.full_like(scores, -torch.inf), scores)
    return ranked.argmax(dim=1)


def pick(values: Tensor, indices: Tensor) -> Tensor:
    """values (B, K, ...) at indices (B,) -> (B, ...)."""
    return values[torch.arange(len(values), device=values.device), indices]


SELECTORS: Mapping[str, Selector] = {"greedy": greedy}
