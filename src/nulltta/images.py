"""Converting images (B, 3, H, W) in [0, 1] to PIL images and PNG files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from nulltta.files import atomic

if TYPE_CHECKING:
    from PIL import Image

ImageFormat = Literal["png", "jpeg", "webp"]
FRAMES_PER_SECOND = 8
_IMAGE_DESCRIPTION = 0x010E  # the EXIF tag


def to_pil(images: Tensor) -> list[Image.Image]:
    """Convert images (B, 3, H, W) in [0, 1] to PIL images of 8 bits per channel.

    The frames of a video, (B, F, 3, H, W), are put side by side in one image.
    """
    from PIL import Image

    if images.dim() == 5:
        images = images.transpose(1, 2).transpose(2, 3).flatten(3)  # (B, 3, H, F·W)

    pixels = images.detach().float().clamp(0, 1).mul(255).round().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in pixels.astype(np.uint8)]


def digest(picture: Any) -> str | None:
    """Return a hash of the pixels of a PIL image, a tensor or an array, or of a list of them; None for other values."""
    if isinstance(picture, list | tuple):
        each = [digest(one) for one in picture]
        return None if not each or None in each else "".join(map(str, each))
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().double().numpy()
    if not (isinstance(picture, np.ndarray) or hasattr(picture, "getpixel")):
        return None
    pixels = np.asarray(picture)
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=12).hexdigest()


def opaque(image: Image.Image) -> Image.Image:
    """Return a picture as RGB, what is transparent in it on white: the colours beneath are not meant to be seen."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


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


def encoded(image: Image.Image, form: ImageFormat, text: Mapping[str, str] | None = None) -> bytes:
    """Encode an image as PNG, JPEG or WebP.

    Args:
        image: the image.
        form: the format.
        text: notes by keyword: text chunks of a PNG, and JSON in the image description (EXIF) of the others.
    """
    if form == "png":
        return png(image, text)
    exif = image.getexif()
    exif[_IMAGE_DESCRIPTION] = json.dumps(dict(text or {}))
    file = BytesIO()
    image.save(file, format=form, quality=95, exif=exif)
    return file.getvalue()


def save_image(image: Image.Image, path: Path, form: ImageFormat, text: Mapping[str, str] | None = None) -> None:
    """Write an image as `encoded` encodes it, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(encoded(image, form, text))


def save_gif(frames: Sequence[Image.Image], path: Path) -> None:
    """Write the frames of a video as an animation that repeats, `FRAMES_PER_SECOND`, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic(path) as temporary:
        duration = 1000 // FRAMES_PER_SECOND
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)


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
