"""The folder of a batch: pictures, null texts, a record a finished row, the table of scores, the rows that failed.

    images/NAME.png  null_texts/NAME.safetensors  rows/NAME.json  scores.parquet  errors.jsonl

NAME is `Task.name`. The record is written last: a row is finished if its record is there.
"""

from __future__ import annotations

import fcntl
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
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from nulltta.batch.tasks import Failure, Task
from nulltta.errors import InvalidValue
from nulltta.files import as_error, atomic

if TYPE_CHECKING:
    from nulltta.evaluation.comparison import Comparison

Record: TypeAlias = Mapping[str, Any]
"""What is known of a finished row: id, prompt, seed, files, scores, settings, who made it."""
Advance: TypeAlias = Callable[[float], None]
"""Called with how many rows' worth of work was done."""


@dataclass(frozen=True)
class Outcome:
    """What became of some rows: the records of the finished ones, by row, and why the others are not."""

    finished: dict[int, Record] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a batch's files are. Every file appears whole or not at all.

    Errors: `NullTTAError` if a file cannot be written.
    """

    path: Path

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder, and keep other runs out of it until the end, however this one ends; what stayed empty of
        what was made goes again.

        Raises:
            NullTTAError: another run is writing to it.
        """
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        inside = [self.path / name for name in ("images", "null_texts", "rows")]
        with as_error(self.path):
            for folder in inside:
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        try:
            _hold(lock, self.path)
            for left in self.path.glob("**/.*.partial"):  # by a run that was killed
                left.unlink(missing_ok=True)
            yield
        finally:
            lock.close()
            for folder in inside:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()
            if [entry.name for entry in self.path.iterdir()] == [".lock"]:
                (self.path / ".lock").unlink()
            for folder in missing:
                with suppress(OSError):
                    folder.rmdir()

    def record(self, task: Task) -> Record | None:
        """What is known of the task's row if it is finished."""
        try:
            record: Record = json.loads((self.path / "rows" / f"{task.name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        files = (record["image"], record["null_text"])
        return record if all(file is None or (self.path / file).is_file() for file in files) else None

    def commit(self, task: Task, comparison: Comparison) -> Record:
        """Write a finished row."""
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
            with atomic(self.path / "rows" / f"{task.name}.json") as temporary:
                temporary.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        return record

    def write_table(self, records: Sequence[Record]) -> None:
        """scores.parquet, a row a record, in their order; none where there are none."""
        path = self.path / "scores.parquet"
        with as_error(self.path):
            if not records:
                path.unlink(missing_ok=True)
                return
            from pyarrow import parquet

            with atomic(path) as temporary:
                parquet.write_table(_table(records), temporary)

    def write_errors(self, failures: Sequence[Failure]) -> None:
        """errors.jsonl, a line a row that failed, in their order; none where there are none."""
        path = self.path / "errors.jsonl"
        lines = [json.dumps(asdict(failure), ensure_ascii=False) for failure in failures]
        with as_error(self.path):
            if not failures:
                path.unlink(missing_ok=True)
                return
            with atomic(path) as temporary:
                temporary.write_text("\n".join([*lines, ""]), encoding="utf-8", errors="backslashreplace")


def _scores(comparison: Comparison) -> dict[str, float | None]:
    """ "reward.plain", "reward.aligned" of the target, and both of every other measure by its name."""
    found: dict[str, float | None] = {}
    for name, score in comparison.scores.items():
        label = "reward" if score.role == "target" else name
        found |= {f"{label}.plain": _finite(score.plain), f"{label}.aligned": _finite(score.aligned)}
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(records: Sequence[Record]) -> Any:
    """A pyarrow.Table: a column a score, the settings as JSON."""
    import pyarrow

    texts = ("id", "prompt", "negative_prompt", "image", "null_text")
    columns = {name: pyarrow.array([record[name] for record in records], pyarrow.string()) for name in texts}
    columns["seed"] = pyarrow.array([record["seed"] for record in records], pyarrow.int64())
    for name in dict.fromkeys(name for record in records for name in record["scores"]):
        columns[name] = pyarrow.array([record["scores"].get(name) for record in records], pyarrow.float64())
    columns["settings"] = pyarrow.array([json.dumps(record["settings"]) for record in records], pyarrow.string())
    return pyarrow.table(columns)


def _hold(lock: IO[str], path: Path) -> None:
    """Hold the folder's lock, which the system lets go of when this process ends, however it does."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidValue(f"another run is writing to '{path}': wait for its end, or give another folder") from error
    except OSError as error:
        warnings.warn(f"'{path}' knows no locks ({error.strerror}): start no second run there", stacklevel=2)
