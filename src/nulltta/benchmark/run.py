"""Sampling a plan job by job, in this process or in several; every finished row is on the disk at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from nulltta.algorithm.randomness import own_seed
from nulltta.alignment import align
from nulltta.benchmark.counting import counted
from nulltta.benchmark.fitted import FittedSampling
from nulltta.benchmark.measures import Measures
from nulltta.benchmark.noise_network import NoiseNetworkSampling
from nulltta.benchmark.plan import Plan, SamplingJob
from nulltta.benchmark.store import BenchmarkFolder, ImageRow
from nulltta.benchmark.timing import Clock
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.images import to_pil
from nulltta.runs.loading import load_model
from nulltta.runs.request import ModelSettings

OnRows = Callable[[Sequence[ImageRow]], None]


@dataclass(frozen=True)
class WorkerMachine:
    """Where a benchmark runs.

    Attributes:
        workers: the number of processes that sample side by side.
        threads: torch threads per worker; 0 divides torch's own number, which OMP_NUM_THREADS sets, among them.
        device: "cpu", "cuda", ...; None for the GPU if there is one.
        dtype: the model's precision; None for the usual one of the device.

    Raises:
        InvalidValue: if there are fewer than 1 workers or 0 threads.
    """

    workers: int = 1
    threads: int = 0
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidValue(f"must be 1 or more, not {self.workers}", field="workers")
        if self.threads < 0:
            raise InvalidValue(f"must be 0 or more, not {self.threads}", field="threads")

    @property
    def threads_each(self) -> int:
        """torch threads per worker, 1 or more."""
        return self.threads or max(1, torch.get_num_threads() // self.workers)

    def load(self, source: str) -> GuidedModel:
        """Load a model on this machine, without the progress bars of other libraries."""
        return load_model(ModelSettings(model=source, device=self.device, dtype=self.dtype))


class JobSampler:
    """A model with the rewards and measures of a plan; every worker holds one."""

    def __init__(self, plan: Plan, machine: WorkerMachine) -> None:
        self.plan = plan
        self.model = machine.load(plan.model)
        device = next(iter(self.model.encode(["a"], [""])[0].values())).device
        self.measures = Measures(plan.model, plan.targets, plan.measures, device)

    def __call__(self, job: SamplingJob) -> list[ImageRow]:
        """Sample and measure one batch.

        Raises:
            NullTTAError: if the method or a measure fails; the message names the arm and the prompt.
        """
        prompts = [self.plan.prompts[i] for i in job.prompts]
        method, config = job.arm.build()
        began = Clock()
        try:
            with counted(self.model) as evaluations:
                result = align(
                    self.model, prompts, self.measures.targets[job.arm.target],
                    config=config, method=method, seed=[own_seed(job.seed, prompt) for prompt in prompts],
                    progress=False,
                )  # fmt: skip
            images = result.images.detach().float()
        except NullTTAError as error:
            raise NullTTAError(f"{job.arm.name}, target '{job.arm.target}', prompt '{prompts[0]}': {error}") from error
        n, (spent, clock) = len(prompts), began.spent(images.device)
        if isinstance(method, NoiseNetworkSampling):  # it evaluates a denoiser of its own, once per image
            evaluations.forward += n
        scores, features = self.measures(images, prompts), self.measures.packed_features(images)
        if isinstance(method, FittedSampling):  # outside of what is counted and timed
            nats = method.nats(result.problem).tolist()
        else:
            nats = torch.stack([step.kl.float() for step in result.trace]).sum(0).tolist()
        return [
            ImageRow(
                job.arm.key, number, job.seed, spent / n, clock / n,
                evaluations.forward / n, evaluations.backward / n,
                {name: values[b] for name, values in scores.items()}, features[b], nats[b],
                _in_8_bits(images[b]) if self._in_gallery(number, job.seed) else None,
            )
            for b, number in enumerate(job.prompts)
        ]  # fmt: skip

    def _in_gallery(self, prompt: int, seed: int) -> bool:
        return prompt < self.plan.gallery and seed == self.plan.seeds[0]


def sample(plan: Plan, folder: BenchmarkFolder, machine: WorkerMachine, on_rows: OnRows = lambda _: None) -> None:
    """Sample everything in the plan that the folder lacks.

    Args:
        plan: what to sample.
        folder: where rows are kept.
        machine: where to run.
        on_rows: called with the rows of each batch once they are on the disk.

    Raises:
        NullTTAError: if a job fails or a worker dies; finished rows stay.
        KeyboardInterrupt: likewise.
    """
    jobs = list(plan.jobs({row.key for row in folder.rows()}))
    if not jobs:
        return
    with _rows_of(plan, jobs, machine) as batches:
        for rows in batches:
            folder.append(rows, plan)
            on_rows(rows)


@contextmanager
def _rows_of(plan: Plan, jobs: Sequence[SamplingJob], machine: WorkerMachine) -> Iterator[Iterator[list[ImageRow]]]:
    """Yield an iterator over the rows of each job as it ends; the workers end with the block."""
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
    """Yield the rows of each job as it ends."""
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise NullTTAError(
            "a worker died, perhaps because memory ran out: the same command continues; give fewer workers"
        ) from error


_sampler: JobSampler | None = None  # of this worker


def _begin(plan: Plan, machine: WorkerMachine) -> None:
    """Start a worker. The parent handles Ctrl-C; the worker ends when the parent is gone, for whatever reason."""
    global _sampler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(machine.threads_each)
    _sampler = JobSampler(plan, machine)


def _end_with_parent() -> None:
    """Wait for the parent to end, then end this worker."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _work(job: SamplingJob) -> list[ImageRow]:
    """Sample one job in a worker that `_begin` started."""
    if _sampler is None:
        raise RuntimeError("the worker was not started by _begin")
    return _sampler(job)


def _in_8_bits(image: torch.Tensor) -> np.ndarray:
    return np.asarray(to_pil(image[None])[0])
