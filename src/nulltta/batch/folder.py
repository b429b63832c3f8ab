"""The folder of a batch: images, null texts, a record per finished row, the table of scores, and the failed rows.

    images/NAME.png  null_texts/NAME.safetensors  rows/NAME.json  scores.parquet  errors.jsonl

NAME is `RowTask.name`. The record is written last and holds the size and digest of the row's files: a row is finished
if its record exists and its files are as the record says.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, cast

from nulltta.batch.tasks import RowFailure, RowTask
from nulltta.errors import InvalidValue, first_line
from nulltta.files import as_error, atomic

if TYPE_CHECKING:
    from nulltta.evaluation.comparison import Comparison

Record: TypeAlias = Mapping[str, Any]
"""The record of a finished row: its id, prompt, seed, files, scores and settings, and the worker that made it."""
OnAdvance: TypeAlias = Callable[[float], None]
"""Called with the number of rows whose work was done since the last call, as a fraction."""


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
        path: the folder.
    """

    path: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and hold its lock until the end of the block, which keeps other runs out.

        At the end, folders that this run created and left empty are removed again, so that a mistake leaves nothing
        behind. The lock file is removed only together with a folder that this run created, and only by the holder of
        the lock; in any other folder it stays.

        Raises:
            InvalidValue: if another run holds the lock, or the folder cannot be written.
        """
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with as_error(self.path):
            lock = self._lock()
        try:
            with as_error(self.path):
                for folder in self._subfolders:
                    folder.mkdir(exist_ok=True)
                for left in self.path.glob("**/.*.partial"):  # by a run that was killed
                    left.unlink(missing_ok=True)
            yield
        finally:
            self._remove_empty(missing)
            lock.close()

    def _lock(self) -> TextIO:
        """Lock the folder's lock file, which the system unlocks when this process ends in any way.

        Another run may have removed the folder that it created, and the lock file with it, after we opened the file
        and before we locked it. A lock on a removed file keeps nobody out, so the file that is there now is locked.
        """
        path = self.path / ".lock"
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock = path.open("a")
            except FileNotFoundError:  # the folder was removed
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.close()
                raise InvalidValue(
                    f"another run is writing to '{self.path}': wait until it ends, or give another folder"
                ) from error
            except OSError as error:
                warnings.warn(
                    f"the file system of '{self.path}' has no locks ({first_line(error)}): do not start a second run "
                    "there",
                    stacklevel=2,
                )
                return lock
            if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
            lock.close()

    def _remove_empty(self, created: Sequence[Path]) -> None:
        """Remove empty subfolders, and the created folders if they hold nothing but the lock file."""
        for folder in self._subfolders:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        if self.path in created and [entry.name for entry in self.path.iterdir()] == [".lock"]:
            (self.path / ".lock").unlink()
            for folder in created:
                with suppress(OSError):
                    folder.rmdir()

    @property
    def _subfolders(self) -> list[Path]:
        return [self.path / name for name in ("images", "null_texts", "rows")]

    def record(self, task: RowTask) -> Record | None:
        """Return the record of a task's row; None if the row is not finished.

        A row with a damaged record or file is not finished, which a warning says.
        """
        path = self.path / "rows" / f"{task.name}.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            damaged = [name for name, file in record["files"].items() if _digest(self.path / name) != file]
            if {"scores", "settings", "image", "null_text"} <= record.keys() and not damaged:
                return cast("Record", record)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # it was written by somebody else
            damaged = []
        warnings.warn(
            f"row {task.row} is sampled again, because '{(damaged or [f'rows/{path.name}'])[0]}' is damaged",
            stacklevel=2,
        )
        return None

    def commit(self, task: RowTask, comparison: Comparison) -> Record:
        """Write the files of a finished row and return its record.

        Raises:
            InvalidValue: if a file cannot be written.
        """
        from nulltta.images import save_png, to_pil

        null_text = comparison.null_text
        record: dict[str, Any] = {
            "id": task.id, "prompt": task.prompt, "negative_prompt": task.request.negative_prompt,
            "seed": task.request.seed, "image": f"images/{task.name}.png",
            "null_text": None if null_text is None else f"null_texts/{task.name}.safetensors",
            "scores": _scores(comparison), "settings": asdict(task.request.settings.config),
            "worker": f"{platform.node()}:{os.getpid()}",
        }  # fmt: skip
        note = {"id": task.id, "prompt": task.prompt, "seed": str(task.request.seed)}
        note["command"] = shlex.join(task.request.command())
        with as_error(self.path):
            save_png(to_pil(comparison.aligned[None])[0], self.path / record["image"], note)
            if null_text is not None:
                null_text.save(self.path / record["null_text"])
            written = [name for name in (record["image"], record["null_text"]) if name is not None]
            record["files"] = {name: _digest(self.path / name) for name in written}
            with atomic(self.path / "rows" / f"{task.name}.json") as temporary:
                temporary.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        return record

    def write_table(self, records: Sequence[Record]) -> None:
        """Write scores.parquet with one row per record, in the given order; remove it if there are no records.

        Raises:
            InvalidValue: if it cannot be written.
        """
        path = self.path / "scores.parquet"
        with as_error(self.path):
            if not records:
                path.unlink(missing_ok=True)
                return
            from pyarrow import parquet

            with atomic(path) as temporary:
                parquet.write_table(_table(records), temporary)

    def write_errors(self, failures: Sequence[RowFailure]) -> None:
        """Write errors.jsonl with one line per failed row, in the given order; remove it if no row failed.

        Raises:
            InvalidValue: if it cannot be written.
        """
        path = self.path / "errors.jsonl"
        lines = [json.dumps(asdict(failure), ensure_ascii=False) for failure in failures]
        with as_error(self.path):
            if not failures:
                path.unlink(missing_ok=True)
                return
            with atomic(path) as temporary:
                temporary.write_text("\n".join([*lines, ""]), encoding="utf-8", errors="backslashreplace")


def _digest(path: Path) -> dict[str, Any]:
    """Return the size of a file in bytes and the digest of its contents."""
    contents = path.read_bytes()
    return {"bytes": len(contents), "blake2b": hashlib.blake2b(contents, digest_size=16).hexdigest()}


def _scores(comparison: Comparison) -> dict[str, float | None]:
    """Return "reward.plain" and "reward.aligned" of the target, and the same of every other measure by its name."""
    found: dict[str, float | None] = {}
    for name, score in comparison.scores.items():
        label = "reward" if score.role == "target" else name
        found |= {f"{label}.plain": _finite(score.plain), f"{label}.aligned": _finite(score.aligned)}
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(records: Sequence[Record]) -> Any:
    """Return a pyarrow.Table with one column per score and the settings as JSON."""
    import pyarrow

    texts = ("id", "prompt", "negative_prompt", "image", "null_text")
    columns = {name: pyarrow.array([record[name] for record in records], pyarrow.string()) for name in texts}
    columns["seed"] = pyarrow.array([record["seed"] for record in records], pyarrow.int64())
    for name in dict.fromkeys(name for record in records for name in record["scores"]):
        columns[name] = pyarrow.array([record["scores"].get(name) for record in records], pyarrow.float64())
    columns["settings"] = pyarrow.array([json.dumps(record["settings"]) for record in records], pyarrow.string())
    return pyarrow.table(columns)
