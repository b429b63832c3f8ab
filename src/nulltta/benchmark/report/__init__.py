"""The report of a benchmark: one self-contained HTML page, and a Markdown page with its pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nulltta.benchmark.report.content import Study, report_of
from nulltta.benchmark.report.render import write_html, write_markdown
from nulltta.benchmark.store import BenchmarkFolder
from nulltta.errors import InvalidValue, LoadError
from nulltta.files import as_error


def write(folders: Sequence[Path], out: Path, note: str = "") -> list[Path]:
    """Write report.html and report.md for the benchmarks in some folders, finished or not; returns their paths.

    Args:
        folders: the folders.
        out: where to write.
        note: what the reader should know first, such as which rows were sampled on which machine.

    Raises:
        LoadError: if a folder does not hold a benchmark.
        InvalidValue: if a folder has too few rows to compare anything, or if `out` cannot be written to.
        MissingExtra: if Jinja2 is not installed.
    """
    report = report_of([_read(folder) for folder in folders], " ".join(note.split()))
    with as_error(out):
        out.mkdir(parents=True, exist_ok=True)
        return [write_html(report, out / "report.html"), write_markdown(report, out / "report.md")]


def _read(folder: Path) -> Study:
    """Return the plan in a folder, what was measured for it, and its rows so far."""
    stored = BenchmarkFolder(folder)
    if (found := stored.plan()) is None:
        raise LoadError(f"'{folder}' holds no benchmark: `nulltta bench run --out {folder}` makes one")
    study = Study(stored, *found, stored.rows())
    if not any(len(panel.results) > 1 for panel in study.panels):
        raise InvalidValue(f"'{folder}' has no contender's images beside plain ones yet: let it go on for a while")
    return study
