"""Rewards of an operator's own, offered by import path, which tests open, close and break."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from torch import Tensor

GATED, PICKY = NAMES = (f"{__name__}:gated", f"{__name__}:picky")
gate = threading.Event()
gate.set()


def gated(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Brightness, once the gate is open."""
    assert gate.wait(60)
    return images.mean((1, 2, 3))


def picky(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Brightness, not finite for a prompt that says "nan", broken by one that says "boom"."""
    if any("boom" in prompt for prompt in prompts):
        raise LookupError(f"no such thing in {prompts}")
    scores = images.mean((1, 2, 3)) * 1.0
    for i, prompt in enumerate(prompts):
        if "nan" in prompt:
            scores[i] = float("nan")
    return scores
