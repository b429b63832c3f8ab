"""The runs of a session, with their results and files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from nulltta.evaluation.comparison import Comparison
from nulltta.images import to_pil
from nulltta.runs.align_writer import AlignWriter
from nulltta.runs.figures import upscaled
from nulltta.ui.run import FinishedRun

MAX_RUNS = 24
"""The number of runs that a session keeps."""
SIDE = 512
"""The size in pixels to which small images are enlarged."""


@dataclass(frozen=True, eq=False)
class HistoryEntry:
    """A finished run and its folder, which holds the files that `nulltta align` would have written."""

    finished: FinishedRun
    folder: Path

    def file(self, b: int, name: str) -> str | None:
        """Return the path of a file of prompt b; None if there is no such file."""
        several = len(self.finished.comparisons) > 1
        path = self.folder / f"{b:03d}" / name if several else self.folder / name
        return str(path) if path.is_file() else None

    def result(self) -> str:
        """Return the path of result.json."""
        return str(self.folder / "result.json")

    def pair(self, b: int) -> tuple[Image, Image]:
        """Return the plain and the aligned image of prompt b, enlarged if they are small."""
        comparison = self.finished.comparisons[b]
        plain, aligned = (upscaled(to_pil(image[None])[0], SIDE) for image in (comparison.plain, comparison.aligned))
        return plain, aligned


def keep(finished: FinishedRun, root: Path) -> HistoryEntry:
    """Write the files of a run into a new folder inside `root`.

    Raises:
        InvalidValue: if the folder cannot be written.
    """
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=root))
    writer = AlignWriter(finished.request, folder)
    writer.add(finished.comparisons, {"sampling": finished.seconds})
    writer.close("finished" if finished.stopped_after is None else "interrupted")
    return HistoryEntry(finished, folder)


def added(history: Sequence[HistoryEntry], entry: HistoryEntry) -> list[HistoryEntry]:
    """Return the history with a run appended and without the oldest runs beyond `MAX_RUNS`, whose files are deleted."""
    entries = [*history, entry]
    forget(entries[:-MAX_RUNS])
    return entries[-MAX_RUNS:]


def forget(entries: Sequence[HistoryEntry]) -> None:
    """Delete the files of runs."""
    for entry in entries:
        shutil.rmtree(entry.folder, ignore_errors=True)


def thumbnails(history: Sequence[HistoryEntry]) -> list[tuple[Image, str]]:
    """Return one captioned image per prompt of every run, the latest run first."""
    return [
        (entry.pair(b)[1], _caption(entry.finished.comparisons[b]))
        for entry in reversed(history)
        for b in range(len(entry.finished.comparisons))
    ]


def place(history: Sequence[HistoryEntry], index: int) -> tuple[HistoryEntry, int]:
    """Return the run of a thumbnail and the index of its prompt."""
    places = [(entry, b) for entry in reversed(history) for b in range(len(entry.finished.comparisons))]
    return places[index]


def _caption(comparison: Comparison) -> str:
    """Return the gain in the target, which is all that fits under a thumbnail."""
    return f"{next(iter(comparison.scores.values())).gain:+.3f}"
