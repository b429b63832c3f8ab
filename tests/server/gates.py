"""Rewards that are offered by import path, as an operator's own rewards are, and that block or fail on demand."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

GATED, PICKY = NAMES = (f"{__name__}:gated", f"{__name__}:picky")
gate = threading.Event()
gate.set()


def gated(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return the brightness once the gate is open."""
    assert gate.wait(60)
    return images.mean((1, 2, 3))


def picky(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return the brightness; fail for prompts that ask for it.

    "boom" raises an error, "full" runs out of memory, "exit" ends the thread as `sys.exit` does, "cuda" breaks the
    device, and "nan" gives a score that is not finite.
    """
    if any("exit" in prompt for prompt in prompts):
        raise SystemExit("a secret")
    if any("cuda" in prompt for prompt in prompts):
        raise RuntimeError("CUDA error: device-side assert triggered")
    if any("boom" in prompt for prompt in prompts):
        raise LookupError(f"/home/operator/secret.txt does not list {prompts}")
    if any("full" in prompt for prompt in prompts):
        raise torch.OutOfMemoryError("CUDA out of memory in /home/operator/reward.py")
    scores = images.mean((1, 2, 3)) * 1.0
    for i, prompt in enumerate(prompts):
        if "nan" in prompt:
            scores[i] = float("nan")
    return scores
