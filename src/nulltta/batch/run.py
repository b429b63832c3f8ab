"""From a table of prompts to a folder of results. Torch is not imported until there is work to do."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from nulltta.batch.folder import BatchFolder, BatchOutcome, OnAdvance, Record
from nulltta.batch.tasks import GivenForAll, RowFailure, RowTask, batches, require_known_columns, tasks
from nulltta.config import whole
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.prompts import require_text
from nulltta.runs.request import RunSettings
from nulltta.runs.table import read, require_pyarrow

SAVE_INTERVAL = 10.0
"""Seconds between two parts of the table of scores; the record of a finished row is written at once."""

BatchEngine: TypeAlias = Callable[[Iterable[Sequence[RowTask]], OnAdvance], Iterator[BatchOutcome]]
"""Works on batches in any order and yields what became of each; calls the second argument as work is done."""

BatchEngineFactory: TypeAlias = Callable[[RunSettings, BatchFolder], BatchEngine]
"""Prepares an engine, with its model loaded or its workers reserved."""


def local_engine(settings: RunSettings, folder: BatchFolder) -> BatchEngine:
    """Return an engine with one worker in this process.

    Raises:
        NullTTAError: as `BatchWorker` does.
    """
    from nulltta.batch.worker import BatchWorker

    worker = BatchWorker(settings, folder)
    return lambda work, on_advance: (worker.work(batch, on_advance) for batch in work)


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What `nulltta batch` is asked for.

    Attributes:
        table: the file of rows.
        out: the folder of the results, or an address that fsspec knows, such as "s3://bucket/results".
        settings: the settings that all rows share.
        config: the fields of the configuration that were given for all rows; a row's own fields override them.
        seed: the seed of rows without one.
        negative_prompt: the negative prompt of rows without one.
        engine: what does the work.

    Raises:
        InvalidValue: if the seed, the negative prompt or the folder is invalid.
    """

    table: Path
    out: Path | str
    settings: RunSettings
    config: Mapping[str, Any]
    seed: int = 0
    negative_prompt: str = ""
    engine: BatchEngineFactory = local_engine

    def __post_init__(self) -> None:
        whole(self, "seed", at_least=0)
        require_text(self.negative_prompt, "a negative prompt")
        if not str(self.out).strip():
            raise InvalidValue("must name a folder or an address", "out")


@dataclass
class BatchProgress:
    """How far a batch is. Its size does not depend on the number of rows.

    Attributes:
        rows: the number of rows in the table.
        finished: the number of finished rows.
        failures: the rows whose sampling failed.
        invalid: the number of rows that cannot be sampled.
        scored: the number of finished rows with a reward of both images.
        plain: the sum of their rewards of plain sampling.
        aligned: the sum of their rewards of the aligned images.
        interrupted: whether Ctrl-C or SIGTERM ended this run.
    """

    rows: int = 0
    finished: int = 0
    failures: list[RowFailure] = field(default_factory=list)
    invalid: int = 0
    scored: int = 0
    plain: float = 0.0
    aligned: float = 0.0
    interrupted: bool = False

    @property
    def failed(self) -> int:
        """The number of rows that have failed."""
        return len(self.failures) + self.invalid

    @property
    def settled(self) -> int:
        """The number of rows that are finished or have failed."""
        return self.finished + self.failed

    def finish(self, record: Record) -> None:
        """Take note of a finished row."""
        self.finished += 1
        plain, aligned = record["scores"].get("reward.plain"), record["scores"].get("reward.aligned")
        if None not in (plain, aligned):
            self.scored, self.plain, self.aligned = self.scored + 1, self.plain + plain, self.aligned + aligned

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.finished} of {self.rows} rows are finished{failed}"


class ProgressDisplay(Protocol):
    """Shows the progress of a batch."""

    def begin(self, progress: BatchProgress) -> None:
        """Show where this run begins."""
        ...

    def advance(self, rows: float) -> None:
        """Show that the work of that many rows was done, as a fraction."""
        ...

    def show(self, progress: BatchProgress) -> None:
        """Show the progress."""
        ...


def run(request: BatchRequest, display: ProgressDisplay) -> BatchProgress:
    """Finish the rows that are not finished yet.

    The table is read three times, a row at a time: to find the finished rows, to work on the others, and to write the
    table of scores in its order. A run that Ctrl-C, SIGTERM or an error ends early writes that table too. A run that is
    killed leaves the records of the finished rows, from which the next run writes it.

    Args:
        request: what to do.
        display: shows the progress.

    Returns:
        The progress at the end.

    Raises:
        NullTTAError: if the input, the model, a reward or the folder cannot be used; finished rows are kept.
        KeyboardInterrupt: if Ctrl-C was pressed before any row was finished.
    """
    require_pyarrow()
    require_known_columns(read(request.table))
    folder = BatchFolder.at(request.out)
    with folder.locked(), _sigterm_as_interrupt():
        progress, pending, settings = _survey(request, folder)
        try:
            if any(pending):
                engine = request.engine(settings, folder)
                display.begin(progress)
                waiting = (task for task in _tasks(request) if isinstance(task, RowTask) and pending[task.row - 1])
                work = batches(waiting, request.settings.batch_size)
                _follow(engine(work, display.advance), progress, folder, display)
        except (KeyboardInterrupt, NullTTAError) as end:
            if not progress.finished:
                raise
            _save(request, progress, folder)
            if isinstance(end, NullTTAError):
                end.add_note(f"{progress}: the same command continues from there")
                raise
            progress.interrupted = True
        else:
            _save(request, progress, folder)
    return progress


def _tasks(request: BatchRequest) -> Iterator[RowTask | RowFailure]:
    return tasks(read(request.table), request.settings, request.config, request.seed, request.negative_prompt)


def _survey(request: BatchRequest, folder: BatchFolder) -> tuple[BatchProgress, bytearray, RunSettings]:
    """Return the progress of earlier runs, for each row 1 if it is to be sampled and else 0, and what to load.

    Raises:
        InvalidValue: if a setting that was given for all rows has no effect on any of them.
    """
    progress, pending = BatchProgress(), bytearray()
    for_all = GivenForAll(request.settings, request.config)
    for task in _tasks(request):
        progress.rows += 1
        pending.append(0)
        if isinstance(task, RowFailure):
            progress.invalid += 1
            continue
        for_all.see(task)
        if (record := folder.record(task)) is not None:
            progress.finish(record)
        else:
            pending[-1] = 1
    return progress, pending, for_all.checked()


def _follow(
    outcomes: Iterator[BatchOutcome], progress: BatchProgress, folder: BatchFolder, display: ProgressDisplay
) -> None:
    """Count and show what becomes of the rows, and write the scores of new ones from time to time."""
    folder.remove_parts()
    saved, new, parts = time.monotonic(), list[Record](), count()
    for outcome in outcomes:
        for record in outcome.finished.values():
            progress.finish(record)
            new.append(record)
        progress.failures += outcome.failures
        display.show(progress)
        if new and time.monotonic() - saved > SAVE_INTERVAL:
            folder.write_part(next(parts), new)
            saved, new = time.monotonic(), []


def _save(request: BatchRequest, progress: BatchProgress, folder: BatchFolder) -> None:
    """Write the tables of finished and failed rows, in the order of the input."""
    folder.write_table(task for task in _tasks(request) if isinstance(task, RowTask))
    invalid = (task for task in _tasks(request) if isinstance(task, RowFailure)) if progress.invalid else ()
    folder.write_errors(sorted([*progress.failures, *invalid], key=lambda failure: failure.row))
    folder.remove_parts()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, in the main thread, where Python delivers signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
