"""The engine for several GPUs or machines: one worker per GPU, or per share of the CPUs, in an actor of Ray's."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from nulltta.batch.folder import BatchFolder, BatchOutcome, OnAdvance
from nulltta.batch.run import BatchEngine
from nulltta.batch.tasks import RowFailure, RowTask
from nulltta.batch.worker import BatchWorker
from nulltta.errors import InvalidValue, NullTTAError, first_line
from nulltta.files import absolute
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
        ray = require_ray("util")
        connect(ray, self.address)
        settings = replace(settings, model=absolute(settings.model), start=settings.start and absolute(settings.start))
        workers, share = shares(machines(ray), self.workers, settings.device)

        def engine(work: Iterable[Sequence[RowTask]], on_advance: OnAdvance) -> Iterator[BatchOutcome]:
            del on_advance  # steps are not reported across the cluster
            each = iter(work)
            first = list(islice(each, workers))  # as many workers as there are batches
            try:
                with redirect_stdout(sys.stderr):  # Ray prints that a worker died
                    yield from _outcomes(ray, chain(first, each), (settings, folder), len(first), share)
            except ray.exceptions.RayError as error:
                raise NullTTAError(f"Ray failed: {first_line(error)}") from error
            finally:
                ray.shutdown()

        return engine


@dataclass(frozen=True)
class _WorkerReply:
    """What became of a batch, or why the worker cannot work; and the worker's warnings."""

    outcome: BatchOutcome = field(default_factory=BatchOutcome)
    refusal: str = ""
    notes: Sequence[str] = ()


class _RayWorker:
    """A `BatchWorker` in an actor.

    A mistake of the caller's is returned rather than raised, because Ray would take an exception for a failure of the
    machine and try again.
    """

    def __init__(self, settings: RunSettings, folder: BatchFolder) -> None:
        self.refusal = ""
        try:
            if not folder.storage.reachable():
                raise InvalidValue(
                    f"machine '{platform.node()}' does not see '{folder.storage}': give a folder on a file system "
                    "that all machines share, or an address such as s3://bucket/results"
                )
            self.worker = BatchWorker(settings, folder)
        except NullTTAError as error:
            self.refusal = str(error)

    def work(self, batch: Sequence[RowTask]) -> _WorkerReply:
        """Finish the rows of a batch; without rows, say whether the worker can work."""
        if self.refusal or not batch:
            return _WorkerReply(refusal=self.refusal)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module="nulltta")
            try:
                outcome = self.worker.work(batch)
            except NullTTAError as error:
                return _WorkerReply(refusal=str(error))
        return _WorkerReply(outcome, notes=[str(warning.message) for warning in caught])


def _outcomes(
    ray: Any, work: Iterator[Sequence[RowTask]], worker: tuple[RunSettings, BatchFolder], workers: int,
    share: dict[str, int],
) -> Iterator[BatchOutcome]:  # fmt: skip
    """Yield what becomes of each batch.

    A worker is given its next batch when it has finished the last one, so that the table is read as far as it is worked
    on. One for which the cluster has no room yet is given none. The rows of a batch that Ray gave up are tried one by
    one.
    """
    actor = ray.remote(_RayWorker).options(max_restarts=-1, max_task_retries=TRIES - 1, **share)
    pool = [actor.remote(*worker) for _ in range(workers)]
    doing: dict[Any, tuple[Any, Sequence[RowTask]]] = {one.work.remote(()): (one, ()) for one in pool}
    again: list[Sequence[RowTask]] = []
    more = True
    while more or any(batch for _, batch in doing.values()):
        [done], _ = ray.wait(list(doing), num_returns=1)
        one, batch = doing.pop(done)
        try:
            reply: _WorkerReply = ray.get(done)
        except ray.exceptions.RayActorError:
            if len(batch) == 1:
                lost = f"its worker died each of the {TRIES} times that it was tried"
                yield BatchOutcome(failures=[RowFailure(batch[0].row, batch[0].id, lost)])
            again += [[task] for task in batch] if len(batch) > 1 else []
        else:
            if reply.refusal:
                raise InvalidValue(reply.refusal)
            for note in reply.notes:
                warnings.warn(note, stacklevel=2)
            if batch:
                yield reply.outcome
        following = again.pop() if again else next(work, ())
        more = bool(following)
        if following:
            doing[one.work.remote(following)] = one, following
