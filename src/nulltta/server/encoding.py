"""Images as files: PNG, JPEG and WebP, each with a record of how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Literal, TypeAlias

from PIL import Image
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.images import png, to_pil
from nulltta.server.limits import PictureSize

Format: TypeAlias = Literal["png", "jpeg", "webp"]
_DESCRIPTION, _EXIF, _COMMENT = 0x010E, 0x8769, 0x9286  # tags of Exif 2.3
_FIELD = "output_format"
_LONGEST_SIDE: Mapping[Format, int] = {"png": 2**31 - 1, "jpeg": 65_535, "webp": 16_383}
_MOST_EXIF_OF_A_JPEG = 65_533
"""Bytes in one of a JPEG's segments, which holds all of Exif."""


def encode(image: Tensor, kind: Format, quality: int, prompt: str, made: Mapping[str, Any]) -> bytes:
    """Encode an image (3, H, W) in [0, 1].

    A PNG has the record in the text chunks "prompt" and "nulltta", the others in Exif's ImageDescription and
    UserComment.

    Args:
        image: the image.
        kind: the format.
        quality: of JPEG and WebP, from 0 to 100.
        prompt: the prompt.
        made: how the image was made, as can be written in JSON.
    """
    [picture] = to_pil(image[None])
    if kind == "png":
        return png(picture, {"prompt": prompt, "nulltta": json.dumps(made)})
    file = BytesIO()
    picture.save(file, kind.upper(), quality=quality, exif=_exif(prompt, made))
    return file.getvalue()


def require_encodable(kind: Format, size: PictureSize, prompt: str, made: Mapping[str, Any]) -> None:
    """Check that a format can hold an image and its record, before the image is sampled.

    Args:
        kind: the format.
        size: the image's size; the frames of a video are put side by side.
        prompt: the prompt.
        made: how the image will be made, as can be written in JSON.

    Raises:
        InvalidValue: if the image or its record is too large for the format.
    """
    if (longest := max(size.width * size.frames, size.height)) > (most := _LONGEST_SIDE[kind]):
        raise InvalidValue(f"holds {most} pixels per side, and the picture has {longest}: ask for png", _FIELD)
    if kind == "jpeg" and (length := len(_exif(prompt, made).tobytes())) > _MOST_EXIF_OF_A_JPEG:
        reason = (
            f"holds a record of {_MOST_EXIF_OF_A_JPEG} bytes in a JPEG, and that of the prompt and the settings has "
        )
        raise InvalidValue(f"{reason}{length}: ask for png or webp, or shorten them", _FIELD)


def _exif(prompt: str, made: Mapping[str, Any]) -> Image.Exif:
    exif = Image.Exif()
    exif[_DESCRIPTION] = prompt.encode()
    exif.get_ifd(_EXIF)[_COMMENT] = b"ASCII\0\0\0" + json.dumps(made).encode("ascii")
    return exif
