"""The files of a batch: images, null texts, a record per finished row, the table of scores, and the failed rows.

    images/NA/NAME.png  null_texts/NA/NAME.safetensors  rows/NA/NAME.json  scores.parquet  errors.jsonl

NAME is `RowTask.name`, and NA its first two letters, so that a folder holds about a 256th of the rows. The record is
written last and holds the size and digest of the row's files: a row is finished if its record exists and its files are
as the record says. While a run goes on, scores/N.parquet hold the scores of rows in the order in which they were
finished.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from nulltta.batch.storage import Storage, Writer, digest, storage_at
from nulltta.batch.tasks import RowFailure, RowTask
from nulltta.errors import first_line

if TYPE_CHECKING:
    from nulltta.evaluation.comparison import Comparison

Record: TypeAlias = Mapping[str, Any]
"""The record of a finished row: its id, prompt, seed, files, scores and settings, and the worker that made it."""
OnAdvance: TypeAlias = Callable[[float], None]
"""Called with the number of rows whose work was done since the last call, as a fraction."""
ROW_GROUP = 1000
"""Rows of the table of scores that are in memory at a time."""


@dataclass(frozen=True)
class BatchOutcome:
    """What became of some rows.

    Attributes:
        finished: the records of the finished rows, by row number.
        failures: the rows that failed, with the reasons.
    """

    finished: dict[int, Record] = field(default_factory=dict)
    failures: list[RowFailure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BatchFolder:
    """The files of a batch. Every file appears whole or not at all.

    Attributes:
        storage: where they are.
    """

    storage: Storage

    @classmethod
    def at(cls, place: str | Path) -> BatchFolder:
        """Return the folder at a path, or at an address that fsspec knows.

        Raises:
            InvalidValue: if nothing is known of such addresses.
            MissingExtra: if a library is missing that they need.
        """
        return cls(storage_at(place))

    def locked(self) -> AbstractContextManager[None]:
        """Return a context in which no other run uses the folder.

        Raises:
            InvalidValue: if another run does, or the folder cannot be written.
        """
        return cast("AbstractContextManager[None]", self.storage.locked())

    def record(self, task: RowTask) -> Record | None:
        """Return the record of a task's row; None if the row is not finished.

        A row with a damaged record or file is not finished, which a warning says.
        """
        name = _file("rows", task, "json")
        try:
            record = json.loads(self.storage.read(name))
            damaged = [name for name, file in record["files"].items() if digest(self.storage.read(name)) != file]
            if {"scores", "settings", "image", "null_text"} <= record.keys() and not damaged:
                return cast("Record", record)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # it was written by somebody else
            damaged = []
        culprit = damaged[0] if damaged else name
        warnings.warn(f"row {task.row} is sampled again, because '{culprit}' is damaged", stacklevel=2)
        return None

    def commit(self, task: RowTask, comparison: Comparison) -> Record:
        """Write the files of a finished row and return its record.

        Raises:
            InvalidValue: if a file cannot be written.
        """
        from nulltta.images import png, to_pil

        note = {"id": task.id, "prompt": task.prompt, "seed": str(task.request.seed)}
        note["command"] = shlex.join(task.request.command())
        image, null_text = png(to_pil(comparison.aligned[None])[0], note), comparison.null_text
        return self.write_row(task, image, None if null_text is None else null_text.save, _scores(comparison))

    def write_row(
        self, task: RowTask, image: bytes, null_text: Writer | None, scores: Mapping[str, float | None]
    ) -> Record:
        """Write the files of a finished row, its record last, and return the record.

        Args:
            task: the row.
            image: its PNG.
            null_text: writes its null text, if it has one.
            scores: its scores by the names of their columns.

        Raises:
            InvalidValue: if a file cannot be written.
        """
        writers: dict[str, Writer] = {_file("images", task, "png"): lambda path: path.write_bytes(image)}
        if null_text is not None:
            writers[_file("null_texts", task, "safetensors")] = null_text
        files = {name: self.storage.write(name, writer) for name, writer in writers.items()}
        record: Record = {
            "id": task.id, "prompt": task.prompt, "negative_prompt": task.request.negative_prompt,
            "seed": task.request.seed, **dict(zip(("image", "null_text"), (*files, None), strict=False)),
            "scores": scores, "settings": asdict(task.request.settings.config),
            "worker": f"{platform.node()}:{os.getpid()}", "files": files,
        }  # fmt: skip
        self._write_text(_file("rows", task, "json"), json.dumps(record, ensure_ascii=False))
        return record

    def write_part(self, number: int, records: Sequence[Record]) -> None:
        """Write scores/NUMBER.parquet.

        Raises:
            InvalidValue: if it cannot be written.
        """
        self._write_table(f"scores/{number:06}.parquet", records)

    def remove_parts(self) -> None:
        """Delete what `write_part` has written."""
        self.storage.remove("scores/[0-9][0-9][0-9][0-9][0-9][0-9].parquet")

    def write_table(self, tasks: Iterable[RowTask]) -> None:
        """Write scores.parquet with one row per finished row, in the order of the tasks; remove it if there is none.

        Raises:
            InvalidValue: if it cannot be written.
        """
        records = (record for task in tasks if (record := self._written(task)) is not None)
        self._write_table("scores.parquet", records)

    def write_errors(self, failures: Iterable[RowFailure]) -> None:
        """Write errors.jsonl with one line per failed row, in the given order; remove it if no row failed.

        Raises:
            InvalidValue: if it cannot be written.
        """
        lines = [json.dumps(asdict(failure), ensure_ascii=False) for failure in failures]
        if lines:
            self._write_text("errors.jsonl", "\n".join([*lines, ""]))
        else:
            self.storage.remove("errors.jsonl")

    def _written(self, task: RowTask) -> Record | None:
        """Return a task's record, whose files were checked before or have just been written."""
        try:
            record: Record = json.loads(self.storage.read(_file("rows", task, "json")))
            return record if {"scores", "settings", "image", "null_text"} <= record.keys() else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            message = f"row {task.row} is not in the table, because its record cannot be read: {first_line(error)}"
            warnings.warn(message, stacklevel=2)
            return None

    def _write_text(self, name: str, text: str) -> None:
        self.storage.write(name, lambda path: path.write_bytes(text.encode(errors="backslashreplace")))

    def _write_table(self, name: str, records: Iterable[Record]) -> None:
        """Write a Parquet file, a row group at a time; remove it if there are no records."""
        from pyarrow import parquet

        each = iter(records)
        if not (first := list(islice(each, ROW_GROUP))):
            self.storage.remove(name)
            return
        table = _table(first, _score_columns(first))

        def write(path: Path) -> None:
            with parquet.ParquetWriter(path, table.schema) as writer:
                writer.write_table(table)
                while group := list(islice(each, ROW_GROUP)):
                    writer.write_table(_table(group, table.schema.names[6:-1]))

        self.storage.write(name, write)


def _file(folder: str, task: RowTask, suffix: str) -> str:
    """Return the name of one of a row's files."""
    return f"{folder}/{task.name[:2]}/{task.name}.{suffix}"


def _scores(comparison: Comparison) -> dict[str, float | None]:
    """Return "reward.plain" and "reward.aligned" of the target, and the same of every other measure by its name."""
    found: dict[str, float | None] = {}
    for name, score in comparison.scores.items():
        label = "reward" if score.role == "target" else name
        found |= {f"{label}.plain": _finite(score.plain), f"{label}.aligned": _finite(score.aligned)}
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _score_columns(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record["scores"]))


def _table(records: Sequence[Record], scores: Sequence[str]) -> Any:
    """Return a pyarrow.Table with one column per score and the settings as JSON."""
    import pyarrow

    texts = ("id", "prompt", "negative_prompt", "image", "null_text")
    columns = {name: pyarrow.array([record[name] for record in records], pyarrow.string()) for name in texts}
    columns["seed"] = pyarrow.array([record["seed"] for record in records], pyarrow.int64())
    for name in scores:
        columns[name] = pyarrow.array([record["scores"].get(name) for record in records], pyarrow.float64())
    columns["settings"] = pyarrow.array([json.dumps(record["settings"]) for record in records], pyarrow.string())
    return pyarrow.table(columns)
