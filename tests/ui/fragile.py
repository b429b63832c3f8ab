"""A reward that raises an error on demand, offered by import path."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

NAME = f"{__name__}:fragile"


def fragile(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return the brightness; raise an error for prompts that say "boom", and leave Python for "exit"."""
    if any("boom" in prompt for prompt in prompts):
        raise LookupError("no such thing")
    if any("exit" in prompt for prompt in prompts):
        raise SystemExit("no way")
    return images.mean((1, 2, 3))
