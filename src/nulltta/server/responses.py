"""The response to a finished job: OpenAI's JSON, or its events as a stream."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from torch import Tensor

from nulltta.server.encoding import encode
from nulltta.server.errors import APIError
from nulltta.server.jobs import FinishedImages, ImageJob
from nulltta.server.schemas import GenerationRequest

HEARTBEAT = 10.0
"""Seconds without an event after which a stream sends a comment, so that proxies keep the connection open."""
_NO_TOKENS = {  # OpenAI's clients require `usage` in the completed event; nothing here is counted in tokens
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}  # fmt: skip


class JobResponse:
    """Formats the response to one job.

    Args:
        job: the job.
        request: what its client asked for.
        model: the name of the model, as clients call it.
    """

    def __init__(self, job: ImageJob, request: GenerationRequest, model: str) -> None:
        self.job, self.request, self.model = job, request, model

    async def as_json(self, finished: FinishedImages, url: Callable[[bytes], str] | None = None) -> dict[str, Any]:
        """Return OpenAI's ImagesResponse.

        Args:
            finished: the images of the job.
            url: stores an encoded image and returns its URL; None to send the images inline as base64.
        """
        job, data = self.job, []
        for image, seed, score in zip(finished.images, job.seeds, finished.rewards, strict=True):
            encoded = await run_in_threadpool(self._encode, image, seed)
            content = {"b64_json": _base64(encoded)} if url is None else {"url": await run_in_threadpool(url, encoded)}
            data.append({**content, "nulltta": {"seed": seed, "score": score}})
        return {
            "created": int(time.time()), "background": "opaque", "output_format": self.request.output_format,
            "size": _size(finished.images), "data": data, "usage": _NO_TOKENS, "nulltta": job.settings.public(),
        }  # fmt: skip

    def as_stream(self) -> EventStream:
        """Return OpenAI's events as a stream. The job is cancelled when the stream ends or its client disconnects."""
        return EventStream(self._events(), self.job.cancel)

    async def _events(self) -> AsyncIterator[str]:
        try:
            while True:
                event = await self.job.next(within=HEARTBEAT)
                if event is None:
                    yield ": still at work\n\n"
                elif isinstance(event, FinishedImages):
                    yield await self._completed(event)
                    return
                else:
                    fields = {"partial_image_index": event.index, "nulltta": {"step": event.step}}
                    yield await self._event("partial_image", event.image, fields)
        except APIError as error:
            yield _server_sent_event("error", error.body())

    async def _completed(self, finished: FinishedImages) -> str:
        extension = {"seed": self.job.seeds[0], "score": finished.rewards[0], **self.job.settings.public()}
        return await self._event("completed", finished.images[0], {"usage": _NO_TOKENS, "nulltta": extension})

    async def _event(self, kind: str, image: Tensor, fields: dict[str, Any]) -> str:
        name = f"image_generation.{kind}"
        encoded = await run_in_threadpool(self._encode, image, self.job.seeds[0])
        return _server_sent_event(name, {
            "type": name, "b64_json": _base64(encoded), "created_at": int(time.time()), "size": _size(image),
            "quality": "auto", "background": "opaque", "output_format": self.request.output_format, **fields,
        })  # fmt: skip

    def _encode(self, image: Tensor, seed: int) -> bytes:
        """Encode an image (3, H, W) with a record of how it was made."""
        job, request = self.job, self.request
        made = job.record(self.model, seed)
        return encode(image, request.output_format, request.output_compression, job.prompt, made)


class EventStream(StreamingResponse):
    """Server-sent events.

    Args:
        events: the formatted events.
        on_end: called when the stream ends for any reason, including a client that disconnects.
    """

    def __init__(self, events: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
        )
        self.on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.on_end()


def _server_sent_event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _size(images: Tensor) -> str:
    """Format the size of images (..., H, W) as "512x768", width first."""
    return f"{images.shape[-1]}x{images.shape[-2]}"


def _base64(encoded: bytes) -> str:
    return base64.b64encode(encoded).decode()
