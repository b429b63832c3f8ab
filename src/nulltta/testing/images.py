"""Images to test rewards and measures on."""

from __future__ import annotations

import torch
from torch import Tensor


def smooth_images(batch: int, size: tuple[int, int]) -> Tensor:
    """Return smooth, coloured images in [0, 1], (B, 3, H, W), the same at every call."""
    coarse = torch.rand((batch, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
