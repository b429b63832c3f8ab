"""The model, its rewards, the queue and the worker: what the routes talk to."""

from __future__ import annotations

import math
import secrets

import torch

from nulltta.alignment import METHODS
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.images import to_pil
from nulltta.server.errors import APIError, stopping
from nulltta.server.jobs import Job, Work
from nulltta.server.limits import check, check_work
from nulltta.server.metrics import Metrics
from nulltta.server.offer import Offer
from nulltta.server.queue import Queue
from nulltta.server.schemas import Chosen, Generation
from nulltta.server.settings import Settings
from nulltta.server.worker import Worker


class Engine:
    """A model at work for clients, from `worker.start()` to `close()`.

    Attributes:
        size: (width, height) of the model's images.

    Raises:
        NullTTAError: a method or a reward of the settings is unknown, or does not load.
    """

    def __init__(self, model: GuidedModel, settings: Settings) -> None:
        if unknown := [method for method in settings.methods if method not in METHODS]:
            raise InvalidValue(f"unknown method '{unknown[0]}': choose among {', '.join(METHODS)}")
        self.model, self.settings = model, settings
        device = next(iter(model.encode([""], [""])[1].values())).device
        self.offer = Offer(settings.rewards, settings.max_terms, device)
        self.size = _size(model, device)
        self.metrics = Metrics()
        self.queue = Queue(settings.queue_size, settings.batch_size, settings.batch_wait)
        self.metrics.waiting.set_function(lambda: len(self.queue.waiting()))
        self.worker = Worker(model, self.offer, self.queue, self.metrics, quote=settings.log_prompts)

    def submit(self, request: Generation, request_id: str) -> Job:
        """Put a request into the queue.

        Raises:
            APIError: the request is wrong, the queue is full, or the server is stopping.
        """
        check(request, self.settings, self.size)
        work = self._work(request.nulltta)
        check_work(work, self.settings, self.offer)
        chosen = request.nulltta.seed
        seed = secrets.randbelow(2**31) if chosen is None else chosen
        job = Job(
            request_id, work, request.prompt, request.nulltta.negative_prompt, range(seed, seed + request.n),
            self.settings.timeout, _spread(request.partial_images, work.config.num_inference_steps),
        )  # fmt: skip
        if not self.queue.put(job):
            raise stopping() if self.queue.closed else self._full()
        return job

    def close(self) -> None:
        """Take no more requests, and turn away those that wait; what is being sampled goes on."""
        for job in self.queue.close():
            job.post(stopping())

    def abort(self) -> None:
        """End what is being sampled, at its next denoising step."""
        for job in self.worker.batch:
            job.post(stopping())
            job.end()

    def _work(self, options: Chosen) -> Work:
        try:
            config = NullTTAConfig.preset(self.model.name, **options.settings())
        except NullTTAError as error:
            raise APIError(400, str(error), code="invalid_value", param="nulltta") from error
        return Work(
            options.reward or self.offer.names[0], options.guard, options.method or self.settings.methods[0], config
        )

    def _full(self) -> APIError:
        """Come back when the batches ahead should be done, by the time that they took so far."""
        images = sum(len(job.seeds) for job in self.queue.waiting())
        batches = math.ceil(images / self.settings.batch_size) + 1
        seconds = batches * (self.worker.seconds_per_batch or 1.0)
        return APIError(429, "too many requests wait: ask again later", code="queue_full", retry_after=seconds)


def _spread(count: int, steps: int) -> list[int]:
    """The denoising steps, from 0, after which partial images are shown: evenly between start and end."""
    return [done - 1 for done in sorted({(k + 1) * steps // (count + 1) for k in range(count)} - {0})]


@torch.no_grad()
def _size(model: GuidedModel, device: torch.device) -> tuple[int, int]:
    """By a try: it also warms the decoder up."""
    latents = torch.zeros((1, *model.latent_shape), device=device)
    return to_pil(model.decode(latents))[0].size
