"""The only thread that samples."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from torch import Tensor

from nulltta.algorithm.streams import MethodRun
from nulltta.alignment import METHODS, make_problem
from nulltta.contracts import Embedding, GuidedModel, ModelWrapper, NoiseStep, Step
from nulltta.errors import InvalidValue
from nulltta.null_text.loading import AnyNullText
from nulltta.scoring import pick
from nulltta.server import logs
from nulltta.server.called import CalledModels
from nulltta.server.errors import from_exception, stopping
from nulltta.server.health import WorkerHealth
from nulltta.server.job_queue import JobQueue
from nulltta.server.jobs import FinishedImages, ImageJob
from nulltta.server.metrics import ServerMetrics
from nulltta.server.rewards import LoadedRewards


class SamplingWorker(threading.Thread):
    """Samples batches of jobs from a queue until the queue is closed.

    Args:
        models: the model under the calls that jobs ask for.
        rewards: the rewards that jobs may ask for.
        queue: where the jobs come from.
        metrics: what is counted.
        health: what is told of progress and failures.
        quote: whether logs may quote prompts.
        null_text: the null text from which every job starts; None for the negative prompt.

    Attributes:
        batch: the jobs being sampled.
        began: when they were taken, as `time.monotonic()` counts.
        seconds_per_batch: a running mean; None before the first batch.
    """

    def __init__(
        self, models: CalledModels, rewards: LoadedRewards, queue: JobQueue, metrics: ServerMetrics,
        health: WorkerHealth, *, quote: bool, null_text: AnyNullText | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name="nulltta-worker", daemon=True)
        self.models, self.rewards, self.queue, self.metrics, self.quote = models, rewards, queue, metrics, quote
        self.health, self.null_text = health, null_text
        self.batch: Sequence[ImageJob] = ()
        self.began = 0.0
        self.seconds_per_batch: float | None = None

    def run(self) -> None:
        """Sample until the queue is closed. If this thread itself fails, everybody who waits is told."""
        try:
            while jobs := self.queue.take():
                self.batch, self.began = jobs, time.monotonic()
                self.metrics.running.set(sum(len(job.seeds) for job in jobs))
                self._process(jobs)
                self.health.ended()
                self.batch = ()
                self.metrics.running.set(0)
        except BaseException as error:
            logs.failure("worker failed", error, quote=self.quote)
            self.health.lose("the worker has stopped")
            for job in (*self.batch, *self.queue.close()):
                job.post(stopping())

    def seconds_left(self) -> float:
        """Estimate the seconds until the batch being sampled is done, from the duration of past ones."""
        if not self.batch:
            return 0.0
        elapsed = time.monotonic() - self.began
        return max((self.seconds_per_batch or 2 * elapsed) - elapsed, 1.0)

    def _process(self, jobs: Sequence[ImageJob]) -> None:
        """Sample a batch and post what came of it. If it fails, sample its jobs one by one, to find the culprit."""
        began = time.monotonic()
        self.health.progress()
        try:
            found = self._sample(jobs)
        except _AbandonedError:
            self.metrics.abandoned.inc()
            logs.write("abandoned", requests=[job.id for job in jobs], seconds=round(time.monotonic() - began, 3))
        except BaseException as error:  # whatever a model or a reward raises, SystemExit too, ends its batch only
            self._fail(jobs, error)
        else:
            self.health.succeeded()
            self._record(jobs, time.monotonic() - began)
            for job, finished in zip(jobs, found, strict=True):
                job.post(finished)

    def _fail(self, jobs: Sequence[ImageJob], error: BaseException) -> None:
        """Log a batch's error, count it unless it is a client's mistake, and sample several jobs one by one."""
        logs.failure("failed", error, quote=self.quote, requests=[job.id for job in jobs])
        if len(jobs) > 1:
            for job in filter(lambda job: job.wanted, jobs):
                self._process([job])
            return
        if not isinstance(error, InvalidValue):
            self.metrics.failed.inc()
            self.health.failed(error)
        jobs[0].post(from_exception(error, jobs[0].id))

    def _sample(self, jobs: Sequence[ImageJob]) -> list[FinishedImages]:
        """Sample the images of jobs with equal settings as one batch with one row per image.

        Raises:
            _AbandonedError: if at an evaluation of the model nobody waits for any of the jobs.
        """
        rows = [(job, seed) for job in jobs for seed in job.seeds]
        first = [sum(len(job.seeds) for job in jobs[:i]) for i in range(len(jobs))]
        settings = jobs[0].settings

        def on_evaluation() -> None:
            self.health.progress()
            if not any(job.wanted for job in jobs):
                raise _AbandonedError

        def on_step(step: Step) -> None:
            self.metrics.steps.inc()
            on_evaluation()
            for job, row in zip(jobs, first, strict=True):
                if job.wants_partial(step.index) and step.preview is not None:  # a preview is decoded when it is read
                    job.post_partial(step.index, step.preview[row])

        problem = make_problem(
            _WatchedModel(self.models.of(settings.call), on_evaluation),
            [job.prompt for job, _ in rows],
            self.rewards.build(settings.reward),
            settings.config,
            [seed for _, seed in rows],
            [job.negative_prompt for job, _ in rows],
            start=self.null_text,
        )
        with closing(MethodRun(METHODS[settings.method](problem), problem)) as method_run:
            outcome = method_run.finish(on_step)
        images = pick(outcome.candidates, outcome.selected).detach().cpu()
        rewards: Tensor = pick(outcome.rewards, outcome.selected)
        own = [slice(row, row + len(job.seeds)) for job, row in zip(jobs, first, strict=True)]
        return [FinishedImages(images[rows].clone(), rewards[rows].tolist()) for rows in own]

    def _record(self, jobs: Sequence[ImageJob], seconds: float) -> None:
        """Count a finished batch."""
        images = sum(len(job.seeds) for job in jobs)
        self.metrics.images.labels(jobs[0].settings.method).inc(images)
        self.metrics.batch_images.observe(images)
        self.metrics.batch_seconds.observe(seconds)
        before = self.seconds_per_batch
        self.seconds_per_batch = seconds if before is None else 0.8 * before + 0.2 * seconds
        logs.write("sampled", requests=[job.id for job in jobs], images=images, seconds=round(seconds, 3))


class _WatchedModel(ModelWrapper):
    """A model that calls a function before every evaluation of its denoiser: between inner steps too."""

    def __init__(self, model: GuidedModel, on_evaluation: Callable[[], None]) -> None:
        super().__init__(model)
        self._on_evaluation = on_evaluation

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        self._on_evaluation()
        return super().predict(x, step, embedding)


class _AbandonedError(Exception):
    """Nobody waits for this batch any more."""
