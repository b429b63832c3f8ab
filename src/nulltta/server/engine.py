"""The model, its rewards, the queue and the worker: what the routes talk to."""

from __future__ import annotations

import math
import secrets
from dataclasses import replace

import torch
from starlette.concurrency import run_in_threadpool

from nulltta.alignment import METHODS
from nulltta.config import NullTTAConfig, refuse_without_effect
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.runs.loading import read_start
from nulltta.server.called import CalledModels, drawn_call
from nulltta.server.defaults import checked_defaults
from nulltta.server.encoding import require_encodable
from nulltta.server.errors import APIError, from_invalid_value, stopping
from nulltta.server.health import WorkerHealth
from nulltta.server.job_queue import JobQueue
from nulltta.server.jobs import ImageJob, JobSettings
from nulltta.server.limits import PictureSize, check_job_settings, check_request, drawn_size
from nulltta.server.metrics import ServerMetrics
from nulltta.server.rewards import LoadedRewards, without_a_download
from nulltta.server.schemas import GenerationRequest
from nulltta.server.settings import ServerSettings
from nulltta.server.worker import SamplingWorker


class ServerEngine:
    """Samples for clients, from `worker.start()` to `close()`.

    Args:
        model: the model.
        settings: the operator's settings.

    Attributes:
        size: the size of the model's own pictures.

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
        self.rewards = LoadedRewards(settings.rewards or without_a_download(model.name), settings.max_terms, device)
        self.size = _own_size(model, device)
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

    async def submit(self, request: GenerationRequest, request_id: str) -> ImageJob:
        """Put a request into the queue. It is checked in another thread, which decodes its pictures.

        Raises:
            APIError: if the request is invalid, the queue is full, or the server is stopping or cannot work any more.
        """
        if self.health.dead():
            raise stopping()
        check_request(request, self.settings)
        job_settings = await run_in_threadpool(self._job_settings, request)
        seed = secrets.randbelow(2**31) if request.nulltta.seed is None else request.nulltta.seed
        job = ImageJob(
            request_id, job_settings, request.prompt, request.nulltta.negative_prompt, range(seed, seed + request.n),
            self.settings.timeout, _evenly_spread(request.partial_images, job_settings.config.num_inference_steps),
        )  # fmt: skip
        frames = drawn_size(job_settings.call, self.size)
        try:
            require_encodable(request.output_format, frames, job.prompt, job.record(self.settings.name, job.seeds[-1]))
        except InvalidValue as error:
            raise from_invalid_value(error, param="output_format") from error
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
        """Return a request's options with the server's defaults filled in.

        Raises:
            APIError: if they are invalid, or ask for more than is allowed.
        """
        options = request.nulltta
        try:
            usual = replace(NullTTAConfig.preset(self.model.name), **self.defaults)
            config = replace(usual, **options.config_fields())
        except InvalidValue as error:
            raise from_invalid_value(error, param="nulltta") from error
        try:
            call = drawn_call(request, self.models, self.settings, self.size)
        except InvalidValue as error:
            raise from_invalid_value(error, param="size") from error
        reward = self.rewards.names[0] if options.reward is None else options.reward
        method = self.settings.methods[0] if options.method is None else options.method
        found = JobSettings(reward, method, config, call)
        check_job_settings(found, self.settings, self.rewards)
        try:
            differentiable = self.rewards.build(reward).differentiable
            started = self.settings.start is not None
            refuse_without_effect(config, usual, method, differentiable=differentiable, started=started)
        except InvalidValue as error:
            raise from_invalid_value(error, param="nulltta") from error
        return found

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
def _own_size(model: GuidedModel, device: torch.device) -> PictureSize:
    """Decode a latent to find the size of its picture, which also warms the decoder up before the first request."""
    decoded = model.decode(torch.zeros((1, *model.latent_shape), device=device))  # (1, [F,] 3, H, W)
    return PictureSize(decoded.shape[-1], decoded.shape[-2], decoded.shape[1] if decoded.dim() == 5 else 1)
