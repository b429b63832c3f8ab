"""The only thread that samples."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing

from torch import Tensor

from nulltta.algorithm.streams import MethodRun
from nulltta.alignment import METHODS, make_problem
from nulltta.contracts import Step
from nulltta.null_text.loading import AnyNullText
from nulltta.scoring import pick
from nulltta.server import logs
from nulltta.server.called import CalledModels
from nulltta.server.errors import from_exception
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
        quote: whether logs may quote prompts.
        null_text: the null text from which every job starts; None for the negative prompt.

    Attributes:
        batch: the jobs being sampled.
        seconds_per_batch: a running mean; None before the first batch.
    """

    def __init__(
        self,
        models: CalledModels,
        rewards: LoadedRewards,
        queue: JobQueue,
        metrics: ServerMetrics,
        *,
        quote: bool,
        null_text: AnyNullText | None = None,
    ) -> None:
        super().__init__(name="nulltta-worker", daemon=True)
        self.models, self.rewards, self.queue, self.metrics, self.quote = models, rewards, queue, metrics, quote
        self.null_text = null_text
        self.batch: Sequence[ImageJob] = ()
        self.seconds_per_batch: float | None = None

    def run(self) -> None:
        """Sample until the queue is closed."""
        while jobs := self.queue.take():
            self.batch = jobs
            self.metrics.running.set(sum(len(job.seeds) for job in jobs))
            self._process(jobs)
            self.batch = ()
            self.metrics.running.set(0)

    def _process(self, jobs: Sequence[ImageJob]) -> None:
        """Sample a batch and post what came of it. If it fails, sample its jobs one by one, to find the culprit."""
        began = time.monotonic()
        try:
            found = self._sample(jobs)
        except _AbandonedError:
            self.metrics.abandoned.inc()
            logs.write("abandoned", requests=[job.id for job in jobs], seconds=round(time.monotonic() - began, 3))
        except Exception as error:  # whatever a model or a reward raises ends its batch, never the server
            self.metrics.failed.inc()
            logs.failure("failed", error, quote=self.quote, requests=[job.id for job in jobs])
            if len(jobs) > 1:
                for job in filter(lambda job: job.wanted, jobs):
                    self._process([job])
            else:
                jobs[0].post(from_exception(error, jobs[0].id))
        else:
            self._record(jobs, time.monotonic() - began)
            for job, finished in zip(jobs, found, strict=True):
                job.post(finished)

    def _sample(self, jobs: Sequence[ImageJob]) -> list[FinishedImages]:
        """Sample the images of jobs with equal settings as one batch with one row per image.

        Raises:
            _AbandonedError: if at the end of a denoising step nobody waits for any of the jobs.
        """
        rows = [(job, seed) for job in jobs for seed in job.seeds]
        first = [sum(len(job.seeds) for job in jobs[:i]) for i in range(len(jobs))]
        settings = jobs[0].settings

        def on_step(step: Step) -> None:
            self.metrics.steps.inc()
            if not any(job.wanted for job in jobs):
                raise _AbandonedError
            for job, row in zip(jobs, first, strict=True):
                if job.wants_partial(step.index) and step.preview is not None:  # a preview is decoded when it is read
                    job.post_partial(step.index, step.preview[row])

        problem = make_problem(
            self.models.of(settings.call),
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


class _AbandonedError(Exception):
    """Nobody waits for this batch any more."""
