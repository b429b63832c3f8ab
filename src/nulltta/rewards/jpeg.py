"""The size of an image as a JPEG file: compressibility and its opposite (Black et al., arXiv 2305.13301)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.images import to_pil

if TYPE_CHECKING:
    from PIL import Image

QUALITY = 95


class JpegSize(Reward):
    """Plus or minus the size of each image as a JPEG of quality 95, in kB of 1000 bytes, (B,).

    The image is neither resized nor rescaled first. There is no gradient, since the size is piecewise constant.
    """

    differentiable = False

    def __init__(self, name: str, sign: float) -> None:
        self.name, self.sign = name, sign

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - ignores prompts
        sizes = [self.sign * _bytes(image) / 1000 for image in to_pil(images.detach())]
        return torch.tensor(sizes, device=images.device)


def _bytes(image: Image.Image) -> int:
    """Return the size of an image as a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.tell()
