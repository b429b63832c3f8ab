"""One request on its way through the queue and the worker, and what the worker tells it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from nulltta.config import NullTTAConfig
from nulltta.server.errors import APIError, timed_out


@dataclass(frozen=True, slots=True)
class Work:
    """What requests must have in common to be sampled together."""

    reward: str
    guard: str | None
    method: str
    config: NullTTAConfig


@dataclass(frozen=True, slots=True)
class Preview:
    """The k-th partial image (3, H, W) in [0, 1], after denoising step `step`, of the request's only prompt."""

    k: int
    step: int
    image: Tensor


@dataclass(frozen=True, slots=True)
class Finished:
    """Images (n, 3, H, W) in [0, 1] on the CPU, and their rewards."""

    images: Tensor
    rewards: Sequence[float]


Event: TypeAlias = Preview | Finished | APIError


class Job:
    """Made in the event loop, which awaits its events; the worker's thread posts them.

    Attributes:
        id: the request's.
        seeds: one an image.
        partials: after which denoising steps partial images are wanted.
        deadline: on the monotonic clock; past it nobody waits for the job.
    """

    def __init__(
        self, id_: str, work: Work, prompt: str, negative_prompt: str, seeds: Sequence[int], seconds: float,
        partials: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.id, self.work, self.prompt, self.negative_prompt = id_, work, prompt, negative_prompt
        self.seeds, self.partials, self.seconds = seeds, partials, seconds
        self.deadline = time.monotonic() + seconds
        self._previews = 0
        self._ended = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self._ended.is_set() and time.monotonic() < self.deadline

    def end(self) -> None:
        """Nobody waits for it any more: its client has its answer, or went away."""
        self._ended.set()

    def post(self, event: Event) -> None:
        """From any thread: hand over an event."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def preview(self, step: int, image: Tensor) -> None:
        """Post a partial image if one is wanted after this step; one that was posted is not posted again."""
        if self._previews < len(self.partials) and step == self.partials[self._previews]:
            self.post(Preview(self._previews, step, image.detach().cpu()))
            self._previews += 1

    async def next(self, within: float) -> Preview | Finished | None:
        """The next event; None if there is none within so many seconds.

        Raises:
            APIError: the job failed, or its time is up.
        """
        left = self.deadline - time.monotonic()
        try:
            event = await asyncio.wait_for(self._events.get(), min(within, left))
        except TimeoutError:
            if within < left:
                return None
            raise timed_out(self.seconds) from None
        if isinstance(event, APIError):
            raise event
        return event
