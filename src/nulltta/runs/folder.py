"""The folder of a run, whose result.json always lists exactly what is finished."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from nulltta.errors import InvalidValue, NullTTAError
from nulltta.files import as_error
from nulltta.runs import record
from nulltta.runs.interrupts import interrupts_deferred

Status = Literal["running", "finished", "interrupted", "failed"]


class RunFolder:
    """A folder and its result.json, which is written whole after each batch and never names a file that is missing.

    Args:
        path: the folder, which is created with the first batch.
        about: what result.json says besides the results and the status.
        expected: the number of results of the whole run.
        unit: what there is one result for, in the plural: "prompts".

    Attributes:
        path: the folder.

    Raises:
        InvalidValue: if the folder cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], expected: int, unit: str) -> None:
        refuse_unwritable(path)
        self.path = path
        self._record: dict[str, Any] = {**about, "results": []}
        self._expected, self._unit = expected, unit

    @property
    def finished(self) -> int:
        """The number of results that are written."""
        return len(self._record["results"])

    @property
    def complete(self) -> bool:
        """Whether all results are written."""
        return self.finished == self._expected

    @contextmanager
    def writing(self, status: Status) -> Iterator[dict[str, Any]]:
        """Yield the record to add to while files are written, then write it to result.json.

        Ctrl-C takes effect after the record has been written.

        Raises:
            InvalidValue: if a file cannot be written.
            KeyboardInterrupt: after a Ctrl-C.
        """
        with interrupts_deferred(), as_error(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            yield self._record
            record.save({**self._record, "status": status}, self.path / "result.json")

    def __str__(self) -> str:
        return f"{self.finished} of {self._expected} {self._unit} are finished and in '{self.path}'"


class Writer(Protocol):
    """What writes the files of a kind of run into a `RunFolder`."""

    folder: RunFolder

    def close(self, status: Status) -> None:
        """Write the last files and the final status."""
        ...


@contextmanager
def closing(writer: Writer) -> Iterator[None]:
    """Close a writer with the status that says how the block ended.

    If a result is finished by then, Ctrl-C ends the block without an exception, and an error of this package is raised
    with a note that says what is finished. Otherwise nothing is written.

    Raises:
        NullTTAError: if the block raises it.
        KeyboardInterrupt: if the block raises it before a result is finished.
    """
    folder = writer.folder
    try:
        yield
    except KeyboardInterrupt:
        if not folder.finished:
            raise
        writer.close("finished" if folder.complete else "interrupted")
    except NullTTAError as error:
        if not folder.finished:
            raise
        writer.close("failed")
        error.add_note(str(folder))
        raise
    else:
        writer.close("finished")


def refuse_unwritable(folder: Path) -> None:
    """Check that a folder can be created or written to, without creating anything.

    Raises:
        InvalidValue: if there is a file in its place, or no permission to write.
    """
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise InvalidValue(f"cannot write to '{folder}': '{existing}' is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InvalidValue(f"cannot write to '{folder}': no permission to write in '{existing}'")
