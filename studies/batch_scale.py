"""The memory and the time that a batch takes by itself: a dry run over many rows, whose pictures are one tiny PNG.

    python studies/batch_scale.py --rows 100000 --out /dev/shm/batch

Nothing is sampled and torch is not imported, so that what is measured is the reading of the table, the writing of
records and of the table of scores, and, in a second run, the check of every finished row.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from nulltta.batch.folder import BatchFolder, BatchOutcome, OnAdvance
from nulltta.batch.run import BatchEngine, BatchProgress, BatchRequest, run
from nulltta.batch.tasks import RowTask
from nulltta.config import NullTTAConfig
from nulltta.runs.request import RunSettings

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)


def dry_engine(_: RunSettings, folder: BatchFolder) -> BatchEngine:
    """Return an engine that finishes every row without sampling."""

    def engine(work: Iterable[Sequence[RowTask]], on_advance: OnAdvance) -> Iterator[BatchOutcome]:
        for batch in work:
            scores = {"reward.plain": 0.5, "reward.aligned": 0.75}
            yield BatchOutcome({task.row: folder.write_row(task, PNG, None, scores) for task in batch})
            on_advance(len(batch))

    return engine


class Memory:
    """A `ProgressDisplay` that notes the resident memory while a batch runs.

    Attributes:
        noted: (rows that are settled, MB) at every tenth of the rows.
    """

    def __init__(self, rows: int) -> None:
        self.noted: list[tuple[int, float]] = []
        self._every = rows // 10

    def begin(self, progress: BatchProgress) -> None:
        """Note the beginning."""
        self.noted.append((progress.settled, resident()))

    def advance(self, rows: float) -> None:
        """Do nothing."""

    def show(self, progress: BatchProgress) -> None:
        """Note the memory at every tenth of the rows."""
        if progress.settled >= len(self.noted) * self._every:
            self.noted.append((progress.settled, resident()))


def resident() -> float:
    """Return the resident memory of this process, in MB."""
    return float(psutil.Process().memory_info().rss) / 1e6


def main() -> None:
    """Run the batch twice and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder, which is deleted at the end")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    table = given.out / "prompts.jsonl"
    with table.open("w") as file:
        for i in range(given.rows):
            file.write(json.dumps({"id": f"row-{i}", "prompt": f"a picture of number {i}", "seed": i}) + "\n")
    settings = RunSettings(config=NullTTAConfig.embedded(), reward="clip")
    request = BatchRequest(table=table, out=given.out / "out", settings=settings, config={}, engine=dry_engine)
    for which in ("first run", "second run, which finds every row finished"):
        memory, before, began = Memory(given.rows), resident(), time.perf_counter()
        progress = run(request, memory)
        noted = ", ".join(f"{rows}: {mb:.0f}" for rows, mb in memory.noted)
        seconds = time.perf_counter() - began
        print(f"{which}: {progress}, {seconds:.0f} s, {before:.0f} MB before, {resident():.0f} MB after")
        if noted:
            print(f"  MB by rows: {noted}")
    shutil.rmtree(given.out)


if __name__ == "__main__":
    main()
