"""The tokenizer of the scenes world, and which captions fit which scenes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...tokenizer import build_tokenizer
from ..grammar import Claim, words

LENGTH = 16
"""Tokens per prompt; the longest caption of the grammar has eleven."""


def tokenizer() -> Any:
    """Return the CLIP tokenizer of every network of this world."""
    return build_tokenizer(words(), LENGTH)


def fits(stated: Claim, shown: Claim) -> bool:
    """Return whether a scene is known to show what a caption states; colours that are not stated may be any."""
    if len(stated.groups) != len(shown.groups) or stated.relation not in (None, shown.relation):
        return False
    orders = [shown.groups] if stated.relation else [shown.groups, shown.groups[::-1]]
    return any(
        all(
            (a.number, a.shape) == (b.number, b.shape) and a.colour in (None, b.colour)
            for a, b in zip(stated.groups, order, strict=True)
        )
        for order in orders
    )


def fit_table(stated: list[Claim], shown: list[Claim]) -> Tensor:
    """Return which captions (columns) fit which scenes (rows), as 0 and 1."""
    return torch.tensor([[fits(caption, scene) for caption in stated] for scene in shown]).float()
