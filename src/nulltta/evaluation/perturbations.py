"""Changes of an image that people hardly see. A reward that was hacked often sees little else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nulltta.images import to_pil

NOISE = 0.02
"""The standard deviation of the noise, in units of the pixel range: five of 256 grey levels."""
QUALITY = 85
"""The quality of the JPEG compression."""
SCALE = 0.75
"""The size to which an image is reduced before it is enlarged again."""


def noisy(images: Tensor) -> Tensor:
    """Add the same white noise of standard deviation `NOISE` to every image, (N, 3, H, W) in [0, 1]."""
    noise = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(0))
    return (images + NOISE * noise.to(images)).clamp(0, 1)


def compressed(images: Tensor) -> Tensor:
    """Compress each image as JPEG of quality `QUALITY` and read it again."""
    from PIL import Image

    decoded = []
    for image in to_pil(images):
        file = BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        decoded.append(torch.from_numpy(np.array(Image.open(file).convert("RGB"))))
    return torch.stack(decoded).permute(0, 3, 1, 2).to(images) / 255


def shifted(images: Tensor) -> Tensor:
    """Move each image by half a pixel to the left and up, by linear interpolation."""
    return functional.avg_pool2d(functional.pad(images, (0, 1, 0, 1), mode="replicate"), 2, stride=1)


def resized(images: Tensor) -> Tensor:
    """Reduce each image to `SCALE` of its size and enlarge it again, both bicubically with antialiasing."""
    height, width = images.shape[-2:]
    small = (max(1, round(SCALE * height)), max(1, round(SCALE * width)))
    reduced = functional.interpolate(images, small, mode="bicubic", antialias=True)
    return functional.interpolate(reduced, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


PERTURBATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "small noise": noisy, f"JPEG {QUALITY}": compressed, "half a pixel": shifted, "a resize": resized,
}  # fmt: skip
"""The perturbations by name: images (N, 3, H, W) in [0, 1] -> the same."""
