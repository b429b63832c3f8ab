"""From a table of prompts to a folder of results. Torch is not imported until there is work to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from nulltta.batch.folder import BatchFolder, BatchOutcome, OnAdvance, Record
from nulltta.batch.table import read, require_pyarrow
from nulltta.batch.tasks import RowFailure, RowTask, batches, tasks
from nulltta.config import whole
from nulltta.errors import NullTTAError
from nulltta.prompts import require_text
from nulltta.runs.request import RunSettings

SAVE_INTERVAL = 10.0
"""Seconds between two writings of the table; the record of a finished row is written at once."""

BatchEngine: TypeAlias = Callable[[Sequence[Sequence[RowTask]], OnAdvance], Iterator[BatchOutcome]]
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
        out: the folder of the results.
        settings: the settings that all rows share.
        config: the fields of the configuration that were given for all rows; a row's own fields override them.
        seed: the seed of rows without one.
        negative_prompt: the negative prompt of rows without one.
        engine: what does the work.

    Raises:
        InvalidValue: if the seed or the negative prompt is invalid.
    """

    table: Path
    out: Path
    settings: RunSettings
    config: Mapping[str, Any]
    seed: int = 0
    negative_prompt: str = ""
    engine: BatchEngineFactory = local_engine

    def __post_init__(self) -> None:
        whole(self, "seed", at_least=0)
        require_text(self.negative_prompt, "a negative prompt")


@dataclass
class BatchProgress:
    """How far a batch is.

    Attributes:
        rows: the number of rows in the table.
        finished: the records of finished rows, by row number.
        failures: the rows that failed.
        interrupted: whether Ctrl-C ended this run.
    """

    rows: int
    finished: dict[int, Record]
    failures: list[RowFailure]
    interrupted: bool = False

    @property
    def settled(self) -> int:
        """The number of rows that are finished or have failed."""
        return len(self.finished) + len(self.failures)

    def add(self, outcome: BatchOutcome) -> None:
        """Take note of what became of some rows."""
        self.finished |= outcome.finished
        self.failures += outcome.failures

    def save(self, folder: BatchFolder) -> None:
        """Write the tables of finished and failed rows, in the order of the input."""
        folder.write_table([self.finished[row] for row in sorted(self.finished)])
        folder.write_errors(sorted(self.failures, key=lambda failure: failure.row))

    def __str__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"{len(self.finished)} of {self.rows} rows are finished{failed}"


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

    A run that Ctrl-C or an error ends early leaves the table of the finished rows. A run that is killed leaves the
    records of the finished rows, from which the next run writes the table.

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
    rows = read(request.table)
    found, failures = tasks(rows, request.settings, request.config, request.seed, request.negative_prompt)
    folder = BatchFolder(request.out.absolute())
    with folder.locked():
        finished = {task.row: record for task in found if (record := folder.record(task)) is not None}
        progress = BatchProgress(len(rows), finished, failures)
        pending = [task for task in found if task.row not in finished]
        try:
            if pending:
                engine = request.engine(request.settings, folder)
                display.begin(progress)
                _follow(
                    engine(batches(pending, request.settings.batch_size), display.advance), progress, folder, display
                )
        except (KeyboardInterrupt, NullTTAError) as end:
            if not progress.finished:
                raise
            progress.save(folder)
            if isinstance(end, NullTTAError):
                end.add_note(f"{progress}: the same command continues from there")
                raise
            progress.interrupted = True
        else:
            progress.save(folder)
    return progress


def _follow(
    outcomes: Iterator[BatchOutcome], progress: BatchProgress, folder: BatchFolder, display: ProgressDisplay
) -> None:
    """Collect, show and save what becomes of the rows."""
    saved = time.monotonic()
    for outcome in outcomes:
        progress.add(outcome)
        display.show(progress)
        if time.monotonic() - saved > SAVE_INTERVAL:
            progress.save(folder)
            saved = time.monotonic()
