"""The served model under the calls that clients ask for: sizes, frames, and pictures that they upload.

A client never names a file: pictures arrive as their contents, in base64.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections import OrderedDict

from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.runs.call import CallSettings
from nulltta.runs.loading import under_their_flags
from nulltta.server.errors import APIError
from nulltta.server.limits import PictureSize, check_call
from nulltta.server.schemas import GenerationRequest
from nulltta.server.settings import ServerSettings

_KEPT = 4
"""How many calls are remembered with what was found out about them."""
_DECODED_AT_ONCE = 2
"""How many requests' pictures are decoded at a time, each of which may take some hundred megabytes."""
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_OPENAIS_SIZES = frozenset({
    "256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1024x1792",
})  # fmt: skip
"""Sizes that OpenAI's clients send without having been asked for them."""
_DATA_URL = re.compile(r"data:image/[a-z+]+;base64,")


class CalledModels:
    """A model under different calls, the most recent of which are kept. It may be used by several threads.

    Args:
        model: the model under the operator's own call.
    """

    def __init__(self, model: GuidedModel) -> None:
        self._model = model
        self._known: OrderedDict[CallSettings, GuidedModel] = OrderedDict()
        self._lock, self._decoding = threading.Lock(), threading.Semaphore(_DECODED_AT_ONCE)

    def of(self, call: CallSettings) -> GuidedModel:
        """Return the model under a call, whose pictures are decoded if it is not one of the most recent.

        Raises:
            InvalidValue: if the model's pipeline has no such argument, or a picture cannot be read.
        """
        with self._lock:
            found = self._known.get(call)
        if found is None:
            with self._decoding:
                found = self._model.called(**call.arguments())
        with self._lock:
            found = self._known.setdefault(call, found)
            self._known.move_to_end(call)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found


def drawn_call(
    request: GenerationRequest, models: CalledModels, settings: ServerSettings, own: PictureSize
) -> CallSettings:
    """Return the call that a request asks for, which the model can draw.

    One of OpenAI's sizes that the model cannot draw is drawn in the model's own size, unless the server is strict. The
    size of an uploaded picture is checked before the picture is decoded.

    Args:
        request: the request.
        models: the model.
        settings: the operator's settings.
        own: the size of the model's own images.

    Raises:
        InvalidValue: if the size or a picture is malformed, or the model's pipeline takes no such argument or value.
        APIError: if the images would be larger than is allowed.
    """
    try:
        call = _call_of(request, request.size, own)
        check_call(call, settings, own)
        with under_their_flags(call):
            models.of(call)
    except (InvalidValue, APIError):
        if settings.strict or request.size not in _OPENAIS_SIZES:
            raise
        call = _call_of(request, "auto", own)
        check_call(call, settings, own)
        with under_their_flags(call):
            models.of(call)
    return call


def _call_of(request: GenerationRequest, size: str, own: PictureSize) -> CallSettings:
    """Return the call that a request asks for in a size; the default call for the model's own size."""
    options = request.nulltta
    width = height = None
    if size not in ("auto", str(own)):
        if (found := _SIZE.fullmatch(size)) is None:
            raise InvalidValue("must be WIDTHxHEIGHT, such as 768x512, or 'auto'", field="size")
        width, height = map(int, found.groups())
    return CallSettings(
        width=width, height=height, num_frames=options.num_frames, strength=options.strength,
        image=_contents(options.image, "image"), mask=_contents(options.mask, "mask"),
    )  # fmt: skip


def _contents(text: str | None, field: str) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidValue("must be a picture in base64", field=field) from error
