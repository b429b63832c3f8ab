"""One request on its way through the queue and the worker, and the events that the worker posts about it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from torch import Tensor

from nulltta.config import NullTTAConfig
from nulltta.runs.call import CallSettings
from nulltta.server.errors import APIError, timed_out


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The settings that jobs must have in common to be sampled as one batch."""

    reward: str
    method: str
    config: NullTTAConfig
    call: CallSettings = CallSettings()

    def public(self) -> dict[str, Any]:
        """Return the settings as clients are told them, without the contents of pictures."""
        told = {name: value for name, value in vars(self.call).items() if value and not isinstance(value, bytes)}
        own = {"reward": self.reward, "method": self.method, "config": asdict(self.config)}
        return own | ({"call": told} if told else {})


@dataclass(frozen=True, slots=True)
class PartialImage:
    """An intermediate image of a job with a single image.

    Attributes:
        index: which of the requested partial images this is, from 0.
        step: the denoising step that it follows, from 0.
        image: (3, H, W) in [0, 1], on the CPU.
    """

    index: int
    step: int
    image: Tensor


@dataclass(frozen=True, slots=True)
class FinishedImages:
    """A job's images (n, 3, H, W) in [0, 1], on the CPU, and their n rewards."""

    images: Tensor
    rewards: Sequence[float]


JobEvent: TypeAlias = PartialImage | FinishedImages | APIError


class ImageJob:
    """A request for images, created in the event loop, which awaits the events that the worker's thread posts.

    Args:
        id_: the id of the request.
        settings: the settings.
        prompt: the prompt of all images.
        negative_prompt: the text of the null embedding that the optimisation starts from.
        seeds: one per image.
        timeout: the seconds until nobody waits for the job any more.
        partials: the denoising steps after which partial images are wanted.
    """

    def __init__(
        self, id_: str, settings: JobSettings, prompt: str, negative_prompt: str, seeds: Sequence[int], timeout: float,
        partials: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.id, self.settings, self.prompt, self.negative_prompt = id_, settings, prompt, negative_prompt
        self.seeds, self.partials, self.timeout = seeds, partials, timeout
        self._deadline = time.monotonic() + timeout
        self._partials_posted = 0
        self._cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[JobEvent] = asyncio.Queue()

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for the job."""
        return not self._cancelled.is_set() and time.monotonic() < self._deadline

    def record(self, model: str, seed: int) -> dict[str, Any]:
        """Return how the image of a seed is made, as its file records it; model: the model's name."""
        return {"model": model, "seed": seed, "negative_prompt": self.negative_prompt, **self.settings.public()}

    def cancel(self) -> None:
        """Declare that nobody waits for the job any more: its client was served or has disconnected."""
        self._cancelled.set()

    def post(self, event: JobEvent) -> None:
        """Hand over an event; may be called in any thread."""
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def wants_partial(self, step: int) -> bool:
        """Return whether a partial image is wanted after this denoising step and was not posted before."""
        return self._partials_posted < len(self.partials) and step == self.partials[self._partials_posted]

    def post_partial(self, step: int, image: Tensor) -> None:
        """Post the next partial image, (3, H, W), of this denoising step."""
        self.post(PartialImage(self._partials_posted, step, image.detach().cpu()))
        self._partials_posted += 1

    async def finished(self) -> FinishedImages:
        """Wait for the job's images, passing over partial ones.

        Raises:
            APIError: if the job failed or its time is up.
        """
        while not isinstance(event := await self.next(within=self.timeout), FinishedImages):
            pass
        return event

    async def next(self, within: float) -> PartialImage | FinishedImages | None:
        """Return the next event, or None if there is none within that many seconds.

        Raises:
            APIError: if the job failed or its time is up.
        """
        left = self._deadline - time.monotonic()
        try:
            event = await asyncio.wait_for(self._events.get(), min(within, left))
        except TimeoutError:
            if within < left:
                return None
            raise timed_out(self.timeout) from None
        if isinstance(event, APIError):
            raise event
        return event
