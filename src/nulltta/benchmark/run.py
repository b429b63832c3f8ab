"""Sampling a plan: job by job, in this process or in several, every finished row on the disk at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from nulltta.alignment import align
from nulltta.benchmark.counting import counted
from nulltta.benchmark.measures import Measures
from nulltta.benchmark.plan import Plan, SamplingJob
from nulltta.benchmark.store import BenchmarkFolder, ImageRow
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.images import to_pil
from nulltta.runs.loading import load_model
from nulltta.runs.request import ModelSettings

OnRows = Callable[[Sequence[ImageRow]], None]


@dataclass(frozen=True)
class WorkerMachine:
    """Where it runs.

    Attributes:
        threads: of torch, in each worker; 0 shares torch's own number among them, which OMP_NUM_THREADS sets.
    """

    workers: int = 1
    threads: int = 0
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidValue(f"the number of workers must be 1 or more, not {self.workers}")

    @property
    def threads_each(self) -> int:
        return self.threads or max(1, torch.get_num_threads() // self.workers)

    def load(self, source: str) -> GuidedModel:
        """A model, where and as it is to run; without libraries' bars, as here is one already."""
        return load_model(ModelSettings(model=source, device=self.device, dtype=self.dtype))


class JobSampler:
    """A model with the rewards and measures of a plan: what every worker holds."""

    def __init__(self, plan: Plan, machine: WorkerMachine) -> None:
        self.plan = plan
        self.model = machine.load(plan.model)
        device = next(iter(self.model.encode(["a"], [""])[0].values())).device
        self.measures = Measures(plan.model, plan.targets, plan.measures, device)

    def __call__(self, job: SamplingJob) -> list[ImageRow]:
        """Sample and measure one batch.

        Raises:
            NullTTAError: the method or a measure failed; the message says on what.
        """
        prompts = [self.plan.prompts[i] for i in job.prompts]
        method, config = job.arm.build()
        began, busy = time.perf_counter(), time.process_time()
        try:
            with counted(self.model) as evaluations:
                result = align(
                    self.model, prompts, self.measures.targets[job.arm.target],
                    config=config, method=method, seed=job.seed,
                )  # fmt: skip
            images = result.images.detach().float()
            _finish(images)
        except NullTTAError as error:
            raise InvalidValue(f"{job.arm.name}, target '{job.arm.target}', prompt '{prompts[0]}': {error}") from error
        n, clock, processor = len(prompts), time.perf_counter() - began, time.process_time() - busy
        spent = processor if images.device.type == "cpu" else clock
        scores, features = self.measures(images, prompts), self.measures.packed_features(images)
        return [
            ImageRow(
                job.arm.key, number, job.seed, spent / n, clock / n,
                evaluations.forward / n, evaluations.backward / n,
                {name: values[b] for name, values in scores.items()}, features[b],
                _in_8_bits(images[b]) if self._shown(number, job.seed) else None,
            )
            for b, number in enumerate(job.prompts)
        ]  # fmt: skip

    def _shown(self, prompt: int, seed: int) -> bool:
        return prompt < self.plan.gallery and seed == self.plan.seeds[0]


def sample(plan: Plan, store: BenchmarkFolder, machine: WorkerMachine, on_rows: OnRows = lambda _: None) -> None:
    """Sample what the store lacks of the plan; `on_rows` hears of each batch once it is on the disk.

    Raises:
        NullTTAError: a job failed, or a worker died; finished rows stay.
        KeyboardInterrupt: likewise.
    """
    jobs = list(plan.jobs({row.key for row in store.rows()}))
    if not jobs:
        return
    with _rows_of(plan, jobs, machine) as batches:
        for rows in batches:
            store.append(rows, plan)
            on_rows(rows)


@contextmanager
def _rows_of(plan: Plan, jobs: Sequence[SamplingJob], machine: WorkerMachine) -> Iterator[Iterator[list[ImageRow]]]:
    """Each job's rows as it ends."""
    if machine.workers == 1:
        torch.set_num_threads(machine.threads_each)
        yield map(JobSampler(plan, machine), jobs)
        return
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(machine.workers, context, _begin, (plan, machine))
    try:
        yield _finished([pool.submit(_work, job) for job in jobs])
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    pool.shutdown()


def _finished(futures: Sequence[Future[list[ImageRow]]]) -> Iterator[list[ImageRow]]:
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise InvalidValue(
            "a worker died, perhaps for want of memory: the same command goes on; give fewer workers"
        ) from error


_sampler: JobSampler | None = None  # of a worker


def _begin(plan: Plan, machine: WorkerMachine) -> None:
    """A worker's start. Ctrl-C is the parent's business; that the parent is gone, however it went, the worker's."""
    global _sampler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(machine.threads_each)
    _sampler = JobSampler(plan, machine)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: SamplingJob) -> list[ImageRow]:
    assert _sampler is not None
    return _sampler(job)


def _in_8_bits(image: torch.Tensor) -> np.ndarray:
    return np.asarray(to_pil(image[None])[0])


def _finish(images: torch.Tensor) -> None:
    """Wait for a GPU, so that its time is counted."""
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
