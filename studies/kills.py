"""Is anything lost or done twice when a batch is killed? 64 rows on the embedded model, verified row by row.

    python studies/kills.py [--rows 64 --workers 2] [any setting of `nulltta batch`]

`nulltta batch` runs three times: undisturbed; with its process killed and started again; and on Ray with a worker
killed, then its process killed and started again. The script prints a Markdown table. It needs nulltta[ray].
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from nulltta.cli.flags import config_flags
from nulltta.embedded.grammar import test_prompts
from nulltta.runs.request import flag

Kill = Callable[[subprocess.Popen[bytes], Mapping[str, Any]], None]
"""Kills something, given the process of the run and the record of the row that was finished last."""


@config_flags
def kills(
    rows: Annotated[int, typer.Option(help="Number of rows, from the beginning of a fixed list.")] = 64,
    workers: Annotated[int, typer.Option(help="Number of Ray workers.")] = 2,
    batch_size: int = 4,
    *,
    settings: dict[str, Any],
) -> None:
    """Kill batches and verify their results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = folder / "prompts.jsonl"
        prompts = [{"id": f"row-{i}", "prompt": p, "seed": i} for i, p in enumerate(test_prompts(rows))]
        table.write_text("".join(json.dumps(row) + "\n" for row in prompts))
        words = [sys.executable, "-m", "nulltta", "batch", str(table), "--reward", "clip"]
        words += ["--batch-size", str(batch_size)]
        for setting, value in settings.items():
            words += [flag(setting), *map(str, value if isinstance(value, tuple) else (value,))]
        ray = ["--engine", "ray", "--ray-address", "local", "--workers", str(workers)]
        runs = {
            "undisturbed": Run(folder / "a", words).to_the_end({}),
            "process killed, started again": Run(folder / "b", words)
            .to_the_end({rows // 4: kill_process})
            .to_the_end({}),
            f"Ray, {workers} workers: worker killed, process killed, started again": Run(folder / "c", [*words, *ray])
            .to_the_end({rows // 4: kill_worker, rows // 2: kill_process})
            .to_the_end({}),
        }
        asked = " ".join(words[words.index("--reward") :])
        print(markdown(runs, runs["undisturbed"]))
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {rows} rows, {asked}.")


@dataclass
class Run:
    """A folder and the command that fills it.

    Attributes:
        first: the time of writing that was first seen of each row's record.
        killed: how many rows were finished at each kill.
        seconds: how long the command ran in total.
    """

    out: Path
    words: Sequence[str]
    first: dict[str, int] = field(default_factory=dict)
    killed: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def to_the_end(self, at: Mapping[int, Kill]) -> Run:
        """Start the command, kill as soon as the given numbers of rows are finished, and wait for its end."""
        waiting, began = dict(at), time.perf_counter()
        process = subprocess.Popen([*self.words, "--out", str(self.out)], stderr=subprocess.DEVNULL)
        while process.poll() is None:
            records = self.look()
            if waiting and len(records) >= (count := min(waiting)):
                self.killed.append(len(records))
                last = max(records, key=lambda name: records[name])
                waiting.pop(count)(process, json.loads((self.out / last).read_text()))
            time.sleep(0.01)
        self.look()
        self.seconds += time.perf_counter() - began
        return self

    def look(self) -> dict[str, int]:
        """Return the records in the folder with the times they were written."""
        found = {str(path.relative_to(self.out)): path.stat().st_mtime_ns for path in self.out.glob("rows/*/[!.]*")}
        for name, written in found.items():
            self.first.setdefault(name, written)
        return found

    def table(self) -> list[dict[str, Any]]:
        """Return the rows of the scores table."""
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(self.out / "scores.parquet").to_pylist()
        return rows

    def pixels(self, row: Mapping[str, Any]) -> Any:
        """Return the picture of a row as an array."""
        with Image.open(self.out / row["image"]) as image:
            return np.asarray(image)


def kill_process(process: subprocess.Popen[bytes], _: Mapping[str, Any]) -> None:
    """Kill the run with all its processes."""
    process.kill()


def kill_worker(_: subprocess.Popen[bytes], record: Mapping[str, Any]) -> None:
    """Kill the worker that finished a row last, which has others in progress."""
    os.kill(int(record["worker"].rpartition(":")[2]), signal.SIGKILL)


def markdown(runs: Mapping[str, Run], reference: Run) -> str:
    """Format one row per run: its results, and how they differ from those of the undisturbed run."""
    lines = [
        "| run | finished when killed | finished in the end | missing | written twice | largest difference of a score "
        "| pictures the same bit for bit | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    expected = {row["id"]: row for row in reference.table()}
    for name, run in runs.items():
        rows = {row["id"]: row for row in run.table()}
        if len(rows) != len(run.table()):
            raise SystemExit(f"{name}: an id is in the table twice")
        twice = sum(run.first[record] != written for record, written in run.look().items())
        apart = max(abs(rows[i]["reward.aligned"] - expected[i]["reward.aligned"]) for i in rows)
        same = sum(bool((run.pixels(rows[i]) == reference.pixels(expected[i])).all()) for i in rows)
        cells = [
            name, ", ".join(map(str, run.killed)) or "–", len(rows), len(expected.keys() - rows.keys()), twice,
            f"{apart:.1e}", f"{same} of {len(rows)}", f"{run.seconds:.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(kills)
