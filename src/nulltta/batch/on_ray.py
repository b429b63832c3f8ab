"""The engine for several GPUs or machines: Ray Data, a worker a GPU or a share of the CPUs."""

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

from nulltta.batch.folder import Advance, Folder, Outcome
from nulltta.batch.run import Engine
from nulltta.batch.tasks import Failure, Task
from nulltta.batch.worker import Worker
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.runs.ray import connect, first_line, machines, require_ray, shares
from nulltta.runs.request import RunSettings

TRIES = 4
"""How often a batch is begun whose worker dies: one that brings its worker down must not do so for ever."""


@dataclass(frozen=True)
class OnRay:
    """Makes engines that run on a Ray cluster whose machines all see the folder.

    address: as of `nulltta.runs.ray.connect`.
    workers: None for one a GPU or, without any, one a machine.
    """

    address: str | None = None
    workers: int | None = None

    def __call__(self, settings: RunSettings, folder: Folder) -> Engine:
        """Raises NullTTAError if Ray is not installed or no cluster answers."""
        ray = require_ray("data")
        connect(ray, self.address)
        _be_quiet(ray)
        if Path(settings.model).is_dir():
            settings = replace(settings, model=str(Path(settings.model).absolute()))
        workers, share = shares(machines(ray), self.workers, settings.device)

        def engine(work: Sequence[Sequence[Task]], advance: Advance) -> Iterator[Outcome]:
            del advance  # the steps stay where they are made
            try:
                with redirect_stdout(sys.stderr):  # where Ray says that a worker died
                    yield from _outcomes(ray, work, (settings, folder), min(workers, len(work)), share)
            except ray.exceptions.RayError as error:
                raise InvalidValue(f"Ray failed: {first_line(error)}") from error
            finally:
                ray.shutdown()

        return engine


@dataclass(frozen=True)
class _Answer:
    """What a worker says of a batch: what became of it, or why it could not begin; and its warnings."""

    outcome: Outcome
    refusal: str = ""
    notes: Sequence[str] = ()


class _RayWorker:
    """`Worker` as Ray Data calls it. A mistake of the caller's travels as an answer: raised, it would be taken for
    the machine's and tried again."""

    def __init__(self, settings: RunSettings, folder: Folder) -> None:
        self.refusal = ""
        try:
            if not folder.path.is_dir():
                raise InvalidValue(
                    f"machine '{platform.node()}' does not see '{folder.path}': give a folder on a file system that "
                    "all machines share"
                )
            self.worker = Worker(settings, folder)
        except NullTTAError as error:
            self.refusal = str(error)

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, list[_Answer]]:
        [batch] = columns["batch"]
        return {"answer": [self._answer(batch)]}

    def _answer(self, batch: Sequence[Task]) -> _Answer:
        if self.refusal:
            return _Answer(Outcome(), self.refusal)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module="nulltta")
            try:
                outcome = self.worker.work(batch)
            except NullTTAError as error:
                return _Answer(Outcome(), str(error))
        return _Answer(outcome, notes=[str(warning.message) for warning in caught])


def _outcomes(
    ray: Any, work: Sequence[Sequence[Task]], worker: tuple[RunSettings, Folder], workers: int, share: dict[str, int]
) -> Iterator[Outcome]:
    """A batch a block, so that a worker's death puts one batch back; one that was given up is tried row by row."""
    # Until 2.64 a worker's retries can be set in this way only, though Ray warns of its end.
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
    blocks = ray.data.from_items([{"batch": list(batch)} for batch in work], override_num_blocks=len(work))
    answers = blocks.map_batches(
        _RayWorker, fn_constructor_args=worker, batch_size=1, batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        max_restarts=-1, max_task_retries=TRIES - 1, **share,
    )  # fmt: skip
    waiting = {task.row: task for batch in work for task in batch}
    for row in answers.iter_rows():
        answer: _Answer = row["answer"]
        if answer.refusal:
            raise InvalidValue(answer.refusal)
        for note in answer.notes:
            warnings.warn(note, stacklevel=2)
        for done in (*answer.outcome.finished, *(failure.row for failure in answer.outcome.failures)):
            del waiting[done]
        yield answer.outcome
    given_up = list(waiting.values())
    if any(len(batch) > 1 and batch[0].row in waiting for batch in work):
        yield from _outcomes(ray, [[task] for task in given_up], worker, workers, share)
    elif given_up:
        lost = f"its worker died, each of the {TRIES} times it was tried"
        yield Outcome(failures=[Failure(task.row, task.id, lost) for task in given_up])


def _be_quiet(ray: Any) -> None:
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
