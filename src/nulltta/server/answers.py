"""What a finished job becomes: OpenAI's JSON, or its events as a stream."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from torch import Tensor

from nulltta.images import png, to_pil
from nulltta.server.errors import APIError
from nulltta.server.jobs import Finished, Job

HEARTBEAT = 10.0  # seconds without a word, after which a stream shows that it is alive
_NO_TOKENS = {  # the completed event must have it; nothing here is counted in tokens
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}  # fmt: skip


class Answer:
    """Of one job, by a model of that name with images of that size."""

    def __init__(self, job: Job, model: str, size: str) -> None:
        self.job, self.model, self.size = job, model, size

    async def as_json(self, finished: Finished, url: Callable[[bytes], str] | None = None) -> dict[str, Any]:
        """OpenAI's ImagesResponse; url: where to fetch a PNG, if they are wanted by URL."""
        job, data = self.job, []
        for image, seed, score in zip(finished.images, job.seeds, finished.rewards, strict=True):
            encoded = await run_in_threadpool(self._png, image, seed)
            shown = {"b64_json": _text(encoded)} if url is None else {"url": await run_in_threadpool(url, encoded)}
            data.append({**shown, "nulltta": {"seed": seed, "score": score}})
        return {
            "created": int(time.time()), "background": "opaque", "output_format": "png", "size": self.size,
            "data": data, "nulltta": asdict(job.work),
        }  # fmt: skip

    def as_stream(self) -> EventStream:
        """OpenAI's events. The job ends with the stream: when it is over, or its client is gone."""
        return EventStream(self._events(), self.job.end)

    async def _events(self) -> AsyncIterator[str]:
        try:
            while True:
                event = await self.job.next(within=HEARTBEAT)
                if event is None:
                    yield ": still at work\n\n"
                elif isinstance(event, Finished):
                    yield await self._completed(event)
                    return
                else:
                    shown = {"partial_image_index": event.k, "nulltta": {"step": event.step}}
                    yield await self._event("partial_image", event.image, shown)
        except APIError as error:
            yield _sse("error", error.body())

    async def _completed(self, finished: Finished) -> str:
        about = {"seed": self.job.seeds[0], "score": finished.rewards[0], **asdict(self.job.work)}
        return await self._event("completed", finished.images[0], {"usage": _NO_TOKENS, "nulltta": about})

    async def _event(self, kind: str, image: Tensor, more: dict[str, Any]) -> str:
        name = f"image_generation.{kind}"
        encoded = await run_in_threadpool(self._png, image, self.job.seeds[0])
        return _sse(name, {
            "type": name, "b64_json": _text(encoded), "created_at": int(time.time()), "size": self.size,
            "quality": "auto", "background": "opaque", "output_format": "png", **more,
        })  # fmt: skip

    def _png(self, image: Tensor, seed: int) -> bytes:
        """With text chunks that say how it was made."""
        made = {"model": self.model, "seed": seed, "negative_prompt": self.job.negative_prompt, **asdict(self.job.work)}
        return png(to_pil(image[None])[0], {"prompt": self.job.prompt, "nulltta": json.dumps(made)})


class EventStream(StreamingResponse):
    """Server-sent events; `over` is called when the stream ends, however it does."""

    def __init__(self, events: AsyncIterator[str], over: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self.over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.over()


def _sse(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _text(encoded: bytes) -> str:
    return base64.b64encode(encoded).decode()
