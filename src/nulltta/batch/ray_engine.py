"""The engine for several GPUs or machines: one worker per GPU, or per share of the CPUs, on Ray Data."""

from __future__ import annotations

import logging
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nulltta.batch.folder import BatchFolder, BatchOutcome, OnAdvance
from nulltta.batch.run import BatchEngine
from nulltta.batch.tasks import RowFailure, RowTask
from nulltta.batch.worker import BatchWorker
from nulltta.errors import InvalidValue, NullTTAError, first_line
from nulltta.runs.ray import connect, machines, require_ray, shares
from nulltta.runs.request import RunSettings

TRIES = 4
"""How often a batch is tried whose worker dies, so that a batch that kills its worker does not do so for ever."""


@dataclass(frozen=True)
class RayEngineFactory:
    """Prepares engines that run on a Ray cluster whose machines all see the folder.

    Attributes:
        address: the cluster, as `nulltta.runs.ray.connect` takes it.
        workers: the number of workers; None for one per GPU or, without GPUs, one per machine.
    """

    address: str | None = None
    workers: int | None = None

    def __call__(self, settings: RunSettings, folder: BatchFolder) -> BatchEngine:
        """Connect to the cluster and return the engine.

        Raises:
            MissingExtra: if Ray is not installed.
            InvalidValue: if no cluster answers.
        """
        ray = require_ray("data")
        connect(ray, self.address)
        _be_quiet(ray)
        if Path(settings.model).is_dir():
            settings = replace(settings, model=str(Path(settings.model).absolute()))
        workers, share = shares(machines(ray), self.workers, settings.device)

        def engine(work: Sequence[Sequence[RowTask]], on_advance: OnAdvance) -> Iterator[BatchOutcome]:
            del on_advance  # steps are not reported across the cluster
            try:
                with redirect_stdout(sys.stderr):  # Ray prints that a worker died
                    yield from _outcomes(ray, work, (settings, folder), min(workers, len(work)), share)
            except ray.exceptions.RayError as error:
                raise NullTTAError(f"Ray failed: {first_line(error)}") from error
            finally:
                ray.shutdown()

        return engine


@dataclass(frozen=True)
class _WorkerReply:
    """What became of a batch, or why the worker cannot work; and the worker's warnings."""

    outcome: BatchOutcome
    refusal: str = ""
    notes: Sequence[str] = ()


class _RayWorker:
    """A `BatchWorker` with the interface of Ray Data.

    A mistake of the caller's is returned rather than raised, because Ray would take an exception for a failure of the
    machine and try again.
    """

    def __init__(self, settings: RunSettings, folder: BatchFolder) -> None:
        self.refusal = ""
        try:
            if not folder.path.is_dir():
                raise InvalidValue(
                    f"machine '{platform.node()}' does not see '{folder.path}': give a folder on a file system that "
                    "all machines share"
                )
            self.worker = BatchWorker(settings, folder)
        except NullTTAError as error:
            self.refusal = str(error)

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, list[_WorkerReply]]:
        [batch] = columns["batch"]
        return {"reply": [self._work(batch)]}

    def _work(self, batch: Sequence[RowTask]) -> _WorkerReply:
        if self.refusal:
            return _WorkerReply(BatchOutcome(), self.refusal)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module="nulltta")
            try:
                outcome = self.worker.work(batch)
            except NullTTAError as error:
                return _WorkerReply(BatchOutcome(), str(error))
        return _WorkerReply(outcome, notes=[str(warning.message) for warning in caught])


def _outcomes(
    ray: Any, work: Sequence[Sequence[RowTask]], worker: tuple[RunSettings, BatchFolder], workers: int,
    share: dict[str, int],
) -> Iterator[BatchOutcome]:  # fmt: skip
    """Yield what becomes of each batch.

    Each batch is one block of the data set, so that the death of a worker affects one batch only. The rows of batches
    that Ray gave up are tried one by one.
    """
    # Before Ray 2.64 this deprecated way is the only one to set how often a worker is tried.
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
    blocks = ray.data.from_items([{"batch": list(batch)} for batch in work], override_num_blocks=len(work))
    replies = blocks.map_batches(
        _RayWorker, fn_constructor_args=worker, batch_size=1, batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        max_restarts=-1, max_task_retries=TRIES - 1, **share,
    )  # fmt: skip
    waiting = {task.row: task for batch in work for task in batch}
    for row in replies.iter_rows():
        reply: _WorkerReply = row["reply"]
        if reply.refusal:
            raise InvalidValue(reply.refusal)
        for note in reply.notes:
            warnings.warn(note, stacklevel=2)
        for done in (*reply.outcome.finished, *(failure.row for failure in reply.outcome.failures)):
            del waiting[done]
        yield reply.outcome
    given_up = list(waiting.values())
    if any(len(batch) > 1 and batch[0].row in waiting for batch in work):
        yield from _outcomes(ray, [[task] for task in given_up], worker, workers, share)
    elif given_up:
        lost = f"its worker died each of the {TRIES} times that it was tried"
        yield BatchOutcome(failures=[RowFailure(task.row, task.id, lost) for task in given_up])


def _be_quiet(ray: Any) -> None:
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
