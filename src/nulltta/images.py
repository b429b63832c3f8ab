"""Tensors (B, 3, H, W) in [0, 1] to pictures and files."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from nulltta.files import atomic

if TYPE_CHECKING:
    from PIL import Image


def to_pil(images: Tensor) -> list[Image.Image]:
    """Images (B, 3, H, W) in [0, 1] as PIL images, rounded to 8 bits; a video's frames (B, F, 3, H, W) side by side."""
    from PIL import Image

    if images.dim() == 5:
        images = images.transpose(1, 2).transpose(2, 3).flatten(3)  # (B, 3, H, F·W)

    pixels = images.detach().float().clamp(0, 1).mul(255).round().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in pixels.astype(np.uint8)]


def png(image: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """A picture as a PNG file's bytes; text: what its text chunks are to say, by keyword."""
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for keyword, value in (text or {}).items():
        chunks.add_text(keyword, value)
    file = BytesIO()
    image.save(file, format="PNG", pnginfo=chunks)
    return file.getvalue()


def save_png(image: Image.Image, path: Path, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG whole or not at all; text: as of `png`."""
    with atomic(path) as temporary:
        temporary.write_bytes(png(image, text))
