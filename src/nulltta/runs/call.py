"""Arguments of the pipeline's own call, as the command line, the server and the page give them.

Nothing here imports torch, and PIL only where a picture is read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nulltta.config import number, whole
from nulltta.errors import InvalidValue, first_line

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
"""The formats of pictures that are read."""
MAX_PICTURE = 4096 * 4096
"""The most pixels of a picture."""
LARGEST_SIDE = 16_384
"""The most pixels of a side that is asked for, and the most frames."""
_LOADERS_OWN = frozenset({"source", "device", "dtype", "null", "base_model", "tiny_decoder", "compile"})
"""Arguments of `load_model` that are not the call's."""


@dataclass(frozen=True, kw_only=True)
class CallSettings:
    """Arguments of the pipeline's own call; None for the pipeline's default.

    Attributes:
        height, width: the size of the pictures, in pixels; 1 to `LARGEST_SIDE`.
        num_frames: of a video, 1 to `LARGEST_SIDE`.
        image: the picture to start from: the path of a file, or the contents of one that was uploaded.
        strength: how much of the picture is replaced by noise, above 0 and up to 1.
        mask: where the picture is painted anew, likewise; white is painted.
        call: other arguments as KEY=VALUE, the value in JSON or as it is, or @FILE for a picture.

    Raises:
        InvalidValue: if a value is out of range, or `call` is malformed.
    """

    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    image: str | bytes | None = None
    strength: float | None = None
    mask: str | bytes | None = None
    call: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("height", "width", "num_frames"):
            if getattr(self, name) is not None:
                whole(self, name, at_least=1, at_most=LARGEST_SIDE)
        if self.strength is not None:
            number(self, "strength", positive=True)
            if self.strength > 1:
                raise InvalidValue(f"must be above 0 and up to 1, not {self.strength}", field="strength")
        for pair in self.call:
            self._pair(pair)

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of the pipeline's call, pictures as PIL images.

        Raises:
            InvalidValue: if a picture cannot be read.
        """
        plain = {name: getattr(self, name) for name in ("height", "width", "num_frames", "strength")}
        found = {name: value for name, value in plain.items() if value is not None}
        if self.image is not None:
            found["image"] = read_picture(self.image, "image")
        if self.mask is not None:
            found["mask_image"] = read_picture(self.mask, "mask").convert("L")
        for pair in self.call:
            key, text = self._pair(pair)
            found[key] = read_picture(text[1:], "call") if text.startswith("@") else _value(text)
        return found

    def contents(self) -> dict[str, Any]:
        """Return the arguments of the pipeline's call in JSON's types, each picture as a hash of its pixels.

        Two calls with equal contents draw equal pictures, whatever the files are named.

        Raises:
            InvalidValue: if a picture cannot be read.
        """
        found = self.arguments()
        pictures = {name: value for name, value in found.items() if hasattr(value, "tobytes")}
        return found | {name: [*each.size, blake2b(each.tobytes()).hexdigest()] for name, each in pictures.items()}

    def _pair(self, pair: str) -> tuple[str, str]:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidValue(f"must be KEY=VALUE, such as clip_skip=2, not '{pair}'", field="call")
        if key in _LOADERS_OWN:
            raise InvalidValue(f"must name an argument of the pipeline's call, which {key} is not", field="call")
        flags = {"mask_image": "mask"}
        if getattr(self, flags.get(key, key), None) is not None and key != "call":
            raise InvalidValue(f"repeats {key}, which has a setting of its own", field="call")
        if sum(each.startswith(f"{key}=") for each in self.call) > 1:
            raise InvalidValue(f"gives {key} twice", field="call")
        return key, text


def picture_size(source: str | bytes) -> tuple[int, int]:
    """Return (width, height) of a picture from its header alone; (0, 0) if `read_picture` will refuse the picture.

    Args:
        source: the path of a file, or the contents of one.
    """
    from PIL import Image

    try:
        with Image.open(Path(source) if isinstance(source, str) else io.BytesIO(source), formats=FORMATS) as picture:
            return picture.size
    except Exception:  # of a damaged header, whatever its decoder raises
        return 0, 0


def read_picture(source: str | bytes, field: str) -> Image.Image:
    """Return a picture as RGB, upright, what is transparent in it on white.

    Args:
        source: the path of a file, or the contents of one.
        field: the setting that gave it, for the message.

    Raises:
        InvalidValue: if it is not a picture of a known format, or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    from nulltta.images import opaque

    name = f"'{source}'" if isinstance(source, str) else "the uploaded file"
    try:
        with Image.open(Path(source) if isinstance(source, str) else io.BytesIO(source), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PICTURE:
                raise InvalidValue(
                    f"is too large: {name} has {picture.width}×{picture.height} pixels of {MAX_PICTURE:,} at most",
                    field=field,
                )
            return opaque(ImageOps.exif_transpose(picture))
    except InvalidValue:
        raise
    except UnidentifiedImageError as error:
        raise InvalidValue(f"must be a picture ({', '.join(FORMATS)}), which {name} is not", field=field) from error
    except Exception as error:  # of a damaged picture, whatever its decoder raises
        raise InvalidValue(f"cannot be read from {name}: {first_line(error)}", field=field) from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
