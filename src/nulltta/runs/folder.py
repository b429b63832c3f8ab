"""The folder of a run, whose result.json always lists exactly what is finished."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from nulltta.errors import InvalidValue, NullTTAError, blaming
from nulltta.files import as_error
from nulltta.runs import record
from nulltta.runs.interrupts import interrupts_deferred

_LOG = logging.getLogger(__name__)
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
        self._started = False

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
            if not self._started:
                _remove_earlier_run(self.path)
                self._started = True
            yield self._record
            record.save({**self._record, "status": status}, self.path / "result.json")
        _LOG.info("%s", self)

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
        with suppress(KeyboardInterrupt):  # a second Ctrl-C takes effect when all is written
            writer.close("finished" if folder.complete else "interrupted")
    except NullTTAError as error:
        if not folder.finished:
            raise
        writer.close("failed")
        error.add_note(str(folder))
        raise
    else:
        writer.close("finished")


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Check that a run may write to a folder: it can be written, and holds no other run unless `overwrite`.

    An earlier run is replaced when the first results are written, so that a run that fails before leaves it alone.

    Raises:
        InvalidValue: if it may not.
    """
    with blaming("out"):
        refuse_unwritable(folder)
    if not overwrite and (folder / "result.json").exists():
        raise InvalidValue(f"'{folder}' holds the results of another run: give another folder, or --overwrite", "out")


def _remove_earlier_run(folder: Path) -> None:
    """Remove the files that an earlier run wrote, as its result.json lists them; whatever else is there stays."""
    path = folder / "result.json"
    try:
        names = [name for result in json.loads(path.read_text())["results"] for name in result["files"].values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return
    inside = folder.resolve()
    for name in [*map(str, names), "contact-sheet.png", "grid.png", "result.json"]:
        file = (inside / name).resolve()
        if file.is_relative_to(inside) and file.is_file():
            file.unlink()
            if file.parent != inside and not any(file.parent.iterdir()):
                file.parent.rmdir()


def refuse_unwritable(folder: Path) -> None:
    """Check that a folder can be created or written to, by trying it; nothing is left behind.

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
    probe = existing / f".{secrets.token_hex(4)}.probe"
    with as_error(folder):  # a read-only disk, or a folder that is none
        probe.mkdir()
        probe.rmdir()
