"""Images as files: PNG, JPEG and WebP, each with a record of how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Literal, TypeAlias

from PIL import Image
from torch import Tensor

from nulltta.images import png, to_pil

Format: TypeAlias = Literal["png", "jpeg", "webp"]
_DESCRIPTION, _EXIF, _COMMENT = 0x010E, 0x8769, 0x9286  # tags of Exif 2.3


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
    exif = Image.Exif()
    exif[_DESCRIPTION] = prompt.encode()
    exif.get_ifd(_EXIF)[_COMMENT] = b"ASCII\0\0\0" + json.dumps(made).encode("ascii")
    file = BytesIO()
    picture.save(file, kind.upper(), quality=quality, exif=exif)
    return file.getvalue()
