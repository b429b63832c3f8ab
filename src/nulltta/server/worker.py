"""The one thread that samples: it takes what fits together from the queue and hands out what the stream of steps
brings. Where nobody waits for a batch any more, the stream is closed, and with it the work ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing

from torch import Tensor

from nulltta.algorithm.memory import is_out_of_memory
from nulltta.alignment import METHODS, drain, make_problem
from nulltta.contracts import GuidedModel, Step
from nulltta.errors import NullTTAError
from nulltta.scoring import pick
from nulltta.server import logs
from nulltta.server.errors import APIError, internal
from nulltta.server.jobs import Finished, Job
from nulltta.server.metrics import Metrics
from nulltta.server.offer import Offer
from nulltta.server.queue import Queue


class Worker(threading.Thread):
    """Runs until the queue is closed.

    Attributes:
        batch: what it is sampling.
        seconds_per_batch: a running mean; None before the first.
    """

    def __init__(self, model: GuidedModel, offer: Offer, queue: Queue, metrics: Metrics, *, quote: bool) -> None:
        super().__init__(name="nulltta-worker", daemon=True)
        self.model, self.offer, self.queue, self.metrics, self.quote = model, offer, queue, metrics, quote
        self.batch: Sequence[Job] = ()
        self.seconds_per_batch: float | None = None

    def run(self) -> None:
        while jobs := self.queue.take():
            self.batch = jobs
            self.metrics.running.set(sum(len(job.seeds) for job in jobs))
            self._serve(jobs)
            self.batch = ()
            self.metrics.running.set(0)

    def _serve(self, jobs: Sequence[Job]) -> None:
        began = time.monotonic()
        try:
            found = self._sample(jobs)
        except _AbandonedError:
            self.metrics.abandoned.inc()
            logs.write("abandoned", requests=[job.id for job in jobs], seconds=round(time.monotonic() - began, 3))
        except Exception as error:  # whatever a model or a reward raises ends its batch, never the server
            self.metrics.failed.inc()
            logs.failure("failed", error, quote=self.quote, requests=[job.id for job in jobs])
            if len(jobs) > 1:  # one request's fault is not its neighbours'
                for job in filter(lambda job: job.wanted, jobs):
                    self._serve([job])
            else:
                jobs[0].post(_answer(error, jobs[0].id))
        else:
            self._count(jobs, time.monotonic() - began)
            for job, finished in zip(jobs, found, strict=True):
                job.post(finished)

    def _sample(self, jobs: Sequence[Job]) -> list[Finished]:
        """Sample the images of requests of the same work, a row an image: what came of each, in order."""
        rows = [(job, seed) for job in jobs for seed in job.seeds]
        first = [sum(len(job.seeds) for job in jobs[:i]) for i in range(len(jobs))]
        work = jobs[0].work

        def on_step(step: Step) -> None:
            self.metrics.steps.inc()
            if not any(job.wanted for job in jobs):
                raise _AbandonedError
            if step.preview is not None:
                for job, row in zip(jobs, first, strict=True):
                    job.preview(step.index, step.preview[row])

        problem = make_problem(
            self.model,
            [job.prompt for job, _ in rows],
            self.offer(work.reward),
            work.config,
            [seed for _, seed in rows],
            [job.negative_prompt for job, _ in rows],
            guard=None if work.guard is None else self.offer(work.guard),
        )
        with closing(METHODS[work.method](problem)) as stream:
            outcome, _ = drain(stream, on_step)
        images = pick(outcome.candidates, outcome.selected).detach().cpu()
        rewards: Tensor = pick(outcome.rewards, outcome.selected)
        own = [slice(row, row + len(job.seeds)) for job, row in zip(jobs, first, strict=True)]
        return [Finished(images[rows].clone(), rewards[rows].tolist()) for rows in own]

    def _count(self, jobs: Sequence[Job], seconds: float) -> None:
        images = sum(len(job.seeds) for job in jobs)
        self.metrics.images.labels(jobs[0].work.method).inc(images)
        self.metrics.batch_images.observe(images)
        self.metrics.batch_seconds.observe(seconds)
        before = self.seconds_per_batch
        self.seconds_per_batch = seconds if before is None else 0.8 * before + 0.2 * seconds
        logs.write("sampled", requests=[job.id for job in jobs], images=images, seconds=round(seconds, 3))


class _AbandonedError(Exception):
    """Nobody waits for this batch."""


def _answer(error: Exception, request_id: str) -> APIError:
    """What the client is told: its own mistake, that memory ran out, or no more than that something went wrong."""
    if isinstance(error, NullTTAError):
        cause = error.__cause__
        if isinstance(cause, RuntimeError) and is_out_of_memory(cause):
            return APIError(503, "out of memory: ask for fewer images or candidates", code="out_of_memory")
        return APIError(400, str(error), code="invalid_value")
    return internal(request_id)
