"""The form of `POST /v1/images/edits`: a picture to start from, and otherwise the fields of a generation."""

from __future__ import annotations

import base64
import json
import re
from io import BytesIO
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from nulltta.server.errors import APIError, from_validation
from nulltta.server.schemas import GenerationRequest

MAX_FILES, MAX_FIELDS = 3, 100
_OPTION = re.compile(r"nulltta\[(\w+)\](\[\])?")
_NUMBERS = ("n", "partial_images", "output_compression")


async def read_edit(form: FormData) -> GenerationRequest:
    """Return the request that a form asks for.

    The options under `nulltta` are a field of JSON, or fields such as nulltta[seed], which OpenAI's client makes of
    its `extra_body`. In a mask what is transparent is painted anew, as in OpenAI's API.

    Raises:
        APIError: if the form is not a valid request, or does not hold exactly one picture.
    """
    body: dict[str, Any] = {}
    options: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {"image": [], "mask": []}
    for name, value in form.multi_items():
        plain = name.removesuffix("[]")
        if isinstance(value, UploadFile):
            if plain not in files:
                raise APIError(400, f"unknown parameter '{plain}'", code="unknown_parameter", param=plain)
            files[plain].append(await value.read())
        elif found := _OPTION.fullmatch(name):
            options[found[1]] = [*_list(options, found[1]), _value(value)] if found[2] else _value(value)
        elif name == "nulltta":
            options |= _json_object(value)
        else:
            body[name] = int(value) if name in _NUMBERS and value.isdecimal() and len(value) < 10 else value
    if len(files["image"]) != 1 or len(files["mask"]) > 1:
        message = "'image': give one picture as a file, and at most one mask"
        raise APIError(400, message, code="invalid_value", param="image")
    options["image"] = base64.b64encode(files["image"][0]).decode()
    if files["mask"]:
        mask = await run_in_threadpool(_white_where_transparent, files["mask"][0])
        options["mask"] = base64.b64encode(mask).decode()
    body.pop("input_fidelity", None)  # how closely a picture is kept is `strength` here
    try:
        return GenerationRequest.model_validate({**body, "nulltta": options})
    except ValidationError as error:
        raise from_validation(error.errors()) from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # the latter of thousands of nested lists
        return text


def _list(options: dict[str, Any], name: str) -> list[Any]:
    """Return the items of a list that have been given so far."""
    if not isinstance(found := options.get(name, []), list):
        param = f"nulltta.{name}"
        raise APIError(400, f"'{param}': it is given as a value and as a list", code="invalid_value", param=param)
    return found


def _json_object(text: str) -> dict[str, Any]:
    if not isinstance(found := _value(text), dict):
        raise APIError(400, "'nulltta': it is not a JSON object", code="invalid_value", param="nulltta")
    return found


def _white_where_transparent(contents: bytes) -> bytes:
    """Return a mask as the model's call has it: white where it is painted anew."""
    try:
        with Image.open(BytesIO(contents), formats=("PNG", "WEBP")) as mask:
            if "A" not in mask.getbands() and "transparency" not in mask.info:
                raise ValueError
            if mask.width * mask.height > 1 << 24:
                raise ValueError
            alpha = mask.convert("RGBA").getchannel("A")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        message = "'mask': it must be a PNG or WebP whose transparent parts are to be painted anew"
        raise APIError(400, message, code="invalid_value", param="mask") from error
    file = BytesIO()
    alpha.point(lambda opacity: 255 - opacity).save(file, "PNG")
    return file.getvalue()
