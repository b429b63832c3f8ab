"""Writing a benchmark up: one self-contained HTML page, and a Markdown page with its pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nulltta.benchmark.report.build import Study, blocks
from nulltta.benchmark.report.document import write_html, write_markdown
from nulltta.benchmark.store import BenchmarkFolder
from nulltta.errors import InvalidValue

PAGE = "report"


def write(folders: Sequence[Path], out: Path) -> list[Path]:
    """report.html and report.md of the benchmarks in these folders, finished or not.

    Raises:
        NullTTAError: a folder holds no benchmark, or too few of its rows to compare anything.
    """
    studies = [study(folder) for folder in folders]
    out.mkdir(parents=True, exist_ok=True)
    page = blocks(studies)
    return [write_html(page, out / f"{PAGE}.html"), write_markdown(page, out / f"{PAGE}.md")]


def study(folder: Path) -> Study:
    """A folder's plan, what was measured for it, and its rows so far."""
    store = BenchmarkFolder(folder)
    if (found := store.plan()) is None:
        raise InvalidValue(f"'{folder}' holds no benchmark: `nulltta bench run --out {folder}` makes one")
    plan, about = found
    made = Study(store, plan, about, store.rows())
    if not any(len(panel.results) > 1 for panel in made.panels):
        raise InvalidValue(f"'{folder}' has no contender's images beside plain ones yet: let it go on for a while")
    return made
