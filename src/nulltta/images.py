"""Converting images (B, 3, H, W) in [0, 1] to PIL images, and writing pictures and videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from nulltta.errors import MissingExtra
from nulltta.files import atomic

if TYPE_CHECKING:
    from PIL import Image

ImageFormat = Literal["png", "jpeg", "webp"]
VideoFormat = Literal["gif", "mp4"]
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


def require_video_format(form: VideoFormat) -> None:
    """Check that videos of a format can be written here.

    Raises:
        MissingExtra: if the library that writes them is not installed.
    """
    if form == "mp4" and find_spec("av") is None:
        raise MissingExtra("writing mp4", "PyAV", "video")


def save_video(frames: Sequence[Image.Image], path: Path, form: VideoFormat) -> None:
    """Write the frames of a video, `FRAMES_PER_SECOND`, whole or not at all.

    Args:
        frames: at least one, all of one size.
        path: the file.
        form: "gif" for an animation that repeats, or "mp4" for H.264. Its chroma has half the resolution, so that a
            side of an odd number of pixels is extended by one.

    Raises:
        MissingExtra: if the library that writes the format is not installed.
        OSError: if the file cannot be written.
    """
    require_video_format(form)
    with atomic(path) as temporary:
        if form == "mp4":
            _write_mp4(frames, temporary)
        else:
            duration = 1000 // FRAMES_PER_SECOND
            frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)


def _write_mp4(frames: Sequence[Image.Image], path: Path) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    height, width = (side + side % 2 for side in np.asarray(frames[0]).shape[:2])
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context  # players guess the colours of a stream that does not state them by its size
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        for frame in frames:
            pixels = np.asarray(frame)
            added = [(0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)]
            picture = av.VideoFrame.from_ndarray(np.pad(pixels, added, mode="edge"), format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode())


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
