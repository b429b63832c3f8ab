"""The size of an image as a JPEG: compressibility and its opposite (Black et al., arXiv 2305.13301)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from nulltta.images import to_pil

QUALITY = 95


class JpegSize:
    """∓ the size in kB (1000 bytes) of the quality-95 JPEG of each image exactly as given: no resizing, no second
    scaling of pixels; (B,). No gradient: coding is piecewise constant."""

    differentiable = False

    def __init__(self, name: str, sign: float) -> None:
        self.name, self.sign = name, sign

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - of the pixels alone
        return torch.tensor([self.sign * size / 1000 for size in map(_size, to_pil(images.detach()))]).to(images.device)


def _size(image: object) -> int:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)  # type: ignore[attr-defined]
    return buffer.tell()
