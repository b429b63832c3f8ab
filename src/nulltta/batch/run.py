"""From a table of prompts to a folder of pictures, by whichever engine; free of torch until there is work to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from nulltta.batch.folder import Advance, Folder, Outcome, Record
from nulltta.batch.rows import read, require_pyarrow
from nulltta.batch.tasks import Failure, Task, batches, tasks
from nulltta.config import whole
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.prompts import require_text
from nulltta.runs.request import RunSettings

TABLE_EVERY = 10.0  # seconds between writings of the table; the records of finished rows are on the disk at once


Engine: TypeAlias = Callable[[Sequence[Sequence[Task]], Advance], Iterator[Outcome]]
"""Does batches, in any order; where it sees the denoising steps, it tells how much of a batch each was."""


EngineMaker: TypeAlias = Callable[[RunSettings, Folder], Engine]
"""What all rows share, the folder -> an engine with its models loaded, or its workers at hand."""


def locally(settings: RunSettings, folder: Folder) -> Engine:
    """One worker in this process."""
    from nulltta.batch.worker import Worker

    worker = Worker(settings, folder)
    return lambda work, advance: (worker.work(batch, advance) for batch in work)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """All that `nulltta batch` is asked for.

    Attributes:
        settings: what the rows share.
        config: the fields of the configuration that were given for all rows; those of a row come on top.
        seed, negative_prompt: those of rows that have none.
    """

    table: Path
    out: Path
    settings: RunSettings
    config: Mapping[str, Any]
    seed: int = 0
    negative_prompt: str = ""
    engine: EngineMaker = locally

    def __post_init__(self) -> None:
        whole(self, "seed", at_least=0)
        require_text(self.negative_prompt, "a negative prompt")


@dataclass
class Standing:
    """How far a batch is.

    Attributes:
        rows: how many the table has.
        finished: the records of finished rows, by row.
        interrupted: whether Ctrl-C ended this run.
    """

    rows: int
    finished: dict[int, Record]
    failures: list[Failure]
    interrupted: bool = False

    @property
    def settled(self) -> int:
        """How many rows there is nothing more to do for in this run."""
        return len(self.finished) + len(self.failures)

    def add(self, outcome: Outcome) -> None:
        self.finished |= outcome.finished
        self.failures += outcome.failures

    def save(self, folder: Folder) -> None:
        """Write the table and the failures, in the order of the input."""
        folder.write_table([self.finished[row] for row in sorted(self.finished)])
        folder.write_errors(sorted(self.failures, key=lambda failure: failure.row))

    def __str__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"{len(self.finished)} of {self.rows} rows are finished{failed}"


class Meter(Protocol):
    """Shows how far a batch is."""

    def begin(self, standing: Standing) -> None: ...

    def advance(self, rows: float) -> None: ...

    def show(self, standing: Standing) -> None: ...


def run(asked: Asked, meter: Meter) -> Standing:
    """Finish the rows that are not finished yet.

    A run that ends early, by Ctrl-C or by an error, leaves the table of what is finished; one that was killed leaves
    the finished rows' records, from which the next run writes it.

    Raises:
        NullTTAError: the input, the model, a reward or the folder cannot be used; rows finished before stay.
        KeyboardInterrupt: Ctrl-C came before any row was finished.
    """
    require_pyarrow()
    rows = read(asked.table)
    found, failures = tasks(rows, asked.settings, asked.config, asked.seed, asked.negative_prompt)
    folder = Folder(asked.out.absolute())
    with folder.claimed():
        finished = {task.row: record for task in found if (record := folder.record(task)) is not None}
        standing = Standing(len(rows), finished, failures)
        pending = [task for task in found if task.row not in finished]
        try:
            if pending:
                engine = asked.engine(asked.settings, folder)
                meter.begin(standing)
                _follow(engine(batches(pending, asked.settings.batch_size), meter.advance), standing, folder, meter)
        except (KeyboardInterrupt, NullTTAError) as end:
            if not standing.finished:
                raise
            standing.save(folder)
            if isinstance(end, NullTTAError):
                raise InvalidValue(f"{end}; {standing}: the same command goes on from there") from end
            standing.interrupted = True
        else:
            standing.save(folder)
    return standing


def _follow(outcomes: Iterator[Outcome], standing: Standing, folder: Folder, meter: Meter) -> None:
    saved = time.monotonic()
    for outcome in outcomes:
        standing.add(outcome)
        meter.show(standing)
        if time.monotonic() - saved > TABLE_EVERY:
            standing.save(folder)
            saved = time.monotonic()
