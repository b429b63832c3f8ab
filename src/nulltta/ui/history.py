"""The runs of a session: what came of each, and its files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from nulltta.evaluation.comparison import Comparison
from nulltta.images import to_pil
from nulltta.runs.figures import upscaled
from nulltta.runs.folder import Output
from nulltta.ui.run import Finished

MOST = 24  # runs that a session keeps
SIDE = 512  # pixels that small pictures are shown at


@dataclass(frozen=True, eq=False)
class Entry:
    """A finished run in a folder of its own, with the files that `nulltta align` would have written."""

    finished: Finished
    folder: Path

    def file(self, b: int, name: str) -> str | None:
        """Where prompt b's file is, if there is one."""
        several = len(self.finished.comparisons) > 1
        path = self.folder / f"{b:03d}" / name if several else self.folder / name
        return str(path) if path.is_file() else None

    def result(self) -> str:
        return str(self.folder / "result.json")

    def pair(self, b: int) -> tuple[Image, Image]:
        """Plain and aligned, large enough to look at."""
        comparison = self.finished.comparisons[b]
        plain, aligned = (upscaled(to_pil(image[None])[0], SIDE) for image in (comparison.plain, comparison.aligned))
        return plain, aligned


def keep(finished: Finished, root: Path) -> Entry:
    """Write a run's files into a new folder inside `root`.

    Raises:
        NullTTAError: the folder cannot be written.
    """
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=root))
    output = Output(finished.request, folder)
    output.add(finished.comparisons, {"sampling": finished.seconds})
    output.close("finished" if finished.stopped_after is None else "interrupted")
    return Entry(finished, folder)


def added(history: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The history with a run more; the oldest go, files and all."""
    entries = [*history, entry]
    forget(entries[:-MOST])
    return entries[-MOST:]


def forget(entries: Sequence[Entry]) -> None:
    """Delete runs' files."""
    for entry in entries:
        shutil.rmtree(entry.folder, ignore_errors=True)


def thumbnails(history: Sequence[Entry]) -> list[tuple[Image, str]]:
    """A picture a prompt of every run, latest first; see `place`."""
    return [
        (entry.pair(b)[1], _caption(entry.finished.comparisons[b]))
        for entry in reversed(history)
        for b in range(len(entry.finished.comparisons))
    ]


def place(history: Sequence[Entry], index: int) -> tuple[Entry, int]:
    """The run and the prompt of a thumbnail."""
    places = [(entry, b) for entry in reversed(history) for b in range(len(entry.finished.comparisons))]
    return places[index]


def _caption(comparison: Comparison) -> str:
    """The target's gain: all that there is room for."""
    return f"{next(iter(comparison.scores.values())).gain:+.3f}"
