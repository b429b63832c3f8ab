"""A killed run loses only the rows in progress."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from nulltta.cli import main

from .tables import MANY, arguments, require_each_row_once, table_of, written


def test_a_killed_run_is_resumed(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*arguments(table_of(MANY, tmp_path), checkpoint, out), "--batch-size", "4"]
    process = subprocess.Popen([sys.executable, "-m", "nulltta.cli", *words])
    deadline = time.monotonic() + 300  # a busy machine takes long to import torch and diffusers
    while len(list(out.glob("rows/*/*.json"))) < 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    rows = list(out.glob("rows/*/*.json"))
    assert 8 <= len(rows) < len(MANY)
    kept = {
        file: at for file, at in written(out).items() if Path(file).stem in {row.stem for row in rows}
    }  # the other files belong to a row in progress
    assert main(words) == 0
    assert kept.items() < written(out).items()
    require_each_row_once(out, MANY, checkpoint)
