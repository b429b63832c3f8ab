"""Pictures with the statistics of photographs: a 1/f spectrum, shading, edges and saturated patches, in 8 bits."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    generator = np.random.default_rng(seed)
    fy, fx = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    noise = np.fft.fft2(generator.standard_normal((3, height, width)), axes=(1, 2))
    field = np.fft.ifft2(noise * amplitude, axes=(1, 2)).real
    field = (0.7 * field.mean(0, keepdims=True) + 0.3 * field) / field.std()
    y, x = np.mgrid[:height, :width] / max(height, width)
    for _ in range(6):  # objects with sharp edges, some black or white
        centre, radius, colour = generator.random(2), 0.05 + 0.2 * generator.random(), generator.choice([-3, 0, 3], 3)
        field[:, np.hypot(y - centre[0], x - centre[1]) < radius] = colour[:, None]
    pixels = np.clip(127 + 60 * field, 0, 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def tensor(image: Image.Image, dtype: torch.dtype = torch.float32) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].to(dtype) / 255
