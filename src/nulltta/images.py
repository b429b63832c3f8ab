"""Converting images (B, 3, H, W) in [0, 1] to PIL images and PNG files."""

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
    """Convert images (B, 3, H, W) in [0, 1] to PIL images of 8 bits per channel.

    The frames of a video, (B, F, 3, H, W), are put side by side in one image.
    """
    from PIL import Image

    if images.dim() == 5:
        images = images.transpose(1, 2).transpose(2, 3).flatten(3)  # (B, 3, H, F·W)

    pixels = images.detach().float().clamp(0, 1).mul(255).round().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in pixels.astype(np.uint8)]


def png(image: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """Encode an image as PNG.

    Args:
        image: the image.
        text: the contents of the PNG's text chunks by keyword.
    """
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for keyword, value in (text or {}).items():
        chunks.add_text(keyword, value)
    file = BytesIO()
    image.save(file, format="PNG", pnginfo=chunks)
    return file.getvalue()


def save_png(image: Image.Image, path: Path, text: Mapping[str, str] | None = None) -> None:
    """Write an image as PNG, whole or not at all.

    Args:
        image: the image.
        path: the file.
        text: the contents of the PNG's text chunks by keyword.

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(png(image, text))
