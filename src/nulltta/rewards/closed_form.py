"""Rewards that are a formula of the pixels: (images (B, 3, H, W) in [0, 1], prompts) -> (B,)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def brightness(images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG001 - of the pixels alone
    """The mean pixel, in [0, 1]."""
    return images.mean(dim=(1, 2, 3))


def colourfulness(images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG001 - of the pixels alone
    """Hasler and Süsstrunk's M3 (Measuring colourfulness in natural images, 2003), of pixels in [0, 1].

    √(σ²_rg + σ²_yb) + 0.3·√(μ²_rg + μ²_yb), rg = R − G, yb = (R + G)/2 − B. Its published scale, on pixels of
    0 to 255, is 255 times this. The gradient is kept finite on grey images.
    """
    r, g, b = images.flatten(2).unbind(1)  # (B, H·W)
    rg, yb = r - g, (r + g) / 2 - b
    tiny = torch.finfo(images.dtype).tiny ** 0.5
    spread = (rg.var(1, correction=0) + yb.var(1, correction=0)).clamp(min=tiny).sqrt()
    mean = (rg.mean(1).square() + yb.mean(1).square()).clamp(min=tiny).sqrt()
    return spread + 0.3 * mean
