"""The model, its rewards, the queue and the worker: what the routes talk to."""

from __future__ import annotations

import math
import secrets

import torch

from nulltta.alignment import METHODS
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.images import to_pil
from nulltta.runs.loading import read_start
from nulltta.server.called import CalledModels, drawn_call
from nulltta.server.defaults import checked_defaults
from nulltta.server.errors import APIError, from_invalid_value, stopping
from nulltta.server.health import WorkerHealth
from nulltta.server.job_queue import JobQueue
from nulltta.server.jobs import ImageJob, JobSettings
from nulltta.server.limits import check_job_settings, check_request
from nulltta.server.metrics import ServerMetrics
from nulltta.server.rewards import LoadedRewards
from nulltta.server.schemas import GenerationRequest
from nulltta.server.settings import ServerSettings
from nulltta.server.worker import SamplingWorker


class ServerEngine:
    """Samples for clients, from `worker.start()` to `close()`.

    Args:
        model: the model.
        settings: the operator's settings.

    Attributes:
        size: (width, height) of the model's images, in pixels.

    Raises:
        InvalidValue: if a method or a reward of the settings is unknown, a method ignores the null text to start from,
            or the defaults are above the limits.
        LoadError: if a reward or the null text does not load.
        DoesNotFit: if the null text was made for another model.
    """

    def __init__(self, model: GuidedModel, settings: ServerSettings) -> None:
        if unknown := [method for method in settings.methods if method not in METHODS]:
            raise InvalidValue(f"'{unknown[0]}' is unknown: choose among {', '.join(METHODS)}", "method")
        if (start := read_start(settings.start, *settings.methods)) is not None:
            start.require_fit(model)
        self.model, self.settings = model, settings
        self.defaults = checked_defaults(settings, model.name)
        device = next(iter(model.encode([""], [""])[1].values())).device
        self.rewards = LoadedRewards(settings.rewards, settings.max_terms, device)
        self.size = _image_size(model, device)
        self.metrics = ServerMetrics()
        self.queue = JobQueue(settings.queue_size, settings.batch_size, settings.batch_wait)
        self.metrics.waiting.set_function(lambda: len(self.queue.waiting()))
        self.models = CalledModels(model)
        self.health = WorkerHealth(settings.stall)
        self.worker = SamplingWorker(
            self.models,
            self.rewards,
            self.queue,
            self.metrics,
            self.health,
            quote=settings.log_prompts,
            null_text=start,
        )

    def submit(self, request: GenerationRequest, request_id: str) -> ImageJob:
        """Put a request into the queue.

        Raises:
            APIError: if the request is invalid, the queue is full, or the server is stopping or cannot work any more.
        """
        if self.health.dead():
            raise stopping()
        check_request(request, self.settings)
        job_settings = self._job_settings(request)
        check_job_settings(job_settings, self.settings, self.rewards)
        seed = secrets.randbelow(2**31) if request.nulltta.seed is None else request.nulltta.seed
        job = ImageJob(
            request_id, job_settings, request.prompt, request.nulltta.negative_prompt, range(seed, seed + request.n),
            self.settings.timeout, _evenly_spread(request.partial_images, job_settings.config.num_inference_steps),
        )  # fmt: skip
        if not self.queue.put(job):
            raise stopping() if self.queue.closed else self._queue_full()
        return job

    def close(self) -> None:
        """Take no more requests and refuse those that wait; the batch being sampled goes on."""
        for job in self.queue.close():
            job.post(stopping())

    def abort(self) -> None:
        """Stop the batch being sampled, at its next evaluation of the model."""
        for job in self.worker.batch:
            job.post(stopping())
            job.cancel()

    def unready(self) -> str:
        """Return why the server should get no requests at the moment; "" if it should."""
        return "the server is stopping" if self.queue.closed and not self.health.dead() else self.health.unready()

    def _job_settings(self, request: GenerationRequest) -> JobSettings:
        """Return a request's options with the server's defaults filled in."""
        options = request.nulltta
        try:
            config = NullTTAConfig.preset(self.model.name, **{**self.defaults, **options.config_fields()})
        except InvalidValue as error:
            raise from_invalid_value(error, param="nulltta") from error
        try:
            call = drawn_call(request, self.models, self.settings, self.size)
        except InvalidValue as error:
            raise from_invalid_value(error, param="size") from error
        reward = self.rewards.names[0] if options.reward is None else options.reward
        method = self.settings.methods[0] if options.method is None else options.method
        return JobSettings(reward, method, config, call)

    def _queue_full(self) -> APIError:
        """Return the error that asks to come back when all batches ahead should be done, at their past speed."""
        images = sum(len(job.seeds) for job in self.queue.waiting())
        waiting = math.ceil(images / self.settings.batch_size) * (self.worker.seconds_per_batch or 1.0)
        seconds = self.worker.seconds_left() + waiting
        return APIError(429, "too many requests are waiting: ask again later", code="queue_full", retry_after=seconds)


def _evenly_spread(count: int, steps: int) -> list[int]:
    """Return the denoising steps, counted from 0, after which `count` partial images are sent."""
    return [done - 1 for done in sorted({(k + 1) * steps // (count + 1) for k in range(count)} - {0})]


@torch.no_grad()
def _image_size(model: GuidedModel, device: torch.device) -> tuple[int, int]:
    """Decode a latent to find (width, height), which also warms the decoder up before the first request."""
    latents = torch.zeros((1, *model.latent_shape), device=device)
    return to_pil(model.decode(latents))[0].size
