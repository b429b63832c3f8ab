"""Only one run at a time may use a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nulltta.batch.folder import BatchFolder
from nulltta.batch.storage import LocalStorage
from nulltta.errors import InvalidValue

from .tables import arguments, require_each_row_once, table_of, written

ROWS = [{"id": "x", "prompt": "a cat", "seed": 3}, {"id": "y", "prompt": "a dog", "seed": 4}]
SLOW = """
import pathlib, time
while not pathlib.Path("go").exists():  # a model that takes long to load
    time.sleep(0.02)
def brightness(images, prompts):
    return images.mean((1, 2, 3))
"""


def test_a_refused_run_leaves_the_first_run_alone(checkpoint: Path, tmp_path: Path) -> None:
    """The first of three processes still loads when the other two are refused, and then finishes all rows."""
    (tmp_path / "slow_reward.py").write_text(SLOW)
    out = tmp_path / "out"
    table = table_of(ROWS, tmp_path)
    command = [sys.executable, "-m", "nulltta.cli", *arguments(table, checkpoint, out), "--reward"]
    with subprocess.Popen([*command, "slow_reward:brightness"], cwd=tmp_path) as first:
        deadline = time.monotonic() + 300  # a busy machine takes long to import torch
        while not (out / ".lock").exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        before = sorted(out.rglob("*"))
        for _ in range(2):
            other = subprocess.run([*command, "brightness"], cwd=tmp_path, capture_output=True, text=True)
            assert other.returncode == 2
            [line] = other.stderr.splitlines()
            assert line.startswith("error: another run is writing to")
            assert sorted(out.rglob("*")) == before
        (tmp_path / "go").touch()
        assert first.wait(300) == 0
    require_each_row_once(out, ROWS, checkpoint)


def test_a_lock_file_goes_only_with_the_folder_that_its_run_created(tmp_path: Path) -> None:
    made, found, used = (LocalStorage(tmp_path / name / "out") for name in ("made", "found", "used"))
    found.path.mkdir(parents=True)
    for folder in (made, found, used):
        with folder.locked():
            if folder is used:
                (folder.path / "scores.parquet").touch()
    assert not made.path.parent.exists()
    assert [file.name for file in found.path.iterdir()] == [".lock"]
    assert sorted(file.name for file in used.path.iterdir()) == [".lock", "scores.parquet"]


def test_the_lock_file_of_a_used_folder_stays_the_same_file(tmp_path: Path) -> None:
    folder = LocalStorage(tmp_path / "out")
    with folder.locked():
        (folder.path / "scores.parquet").touch()
    lock = folder.path / ".lock"
    first = lock.stat().st_ino
    with folder.locked(), pytest.raises(InvalidValue, match="another run is writing to"), folder.locked():
        pass
    assert lock.stat().st_ino == first
    assert written(folder.path) == {}


def test_what_a_batch_has_not_written_stays_in_its_folder(tmp_path: Path) -> None:
    own = [tmp_path / "scores" / "000001.parquet", tmp_path / "rows" / "ab" / ".row.json.0.partial"]
    others = [tmp_path / "scores" / "mine.csv", tmp_path / ".draft.partial", tmp_path / "plans" / ".draft.partial"]
    for file in (*own, *others):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / ".git" / "refs").mkdir(parents=True)
    folder = BatchFolder.at(tmp_path)
    with folder.locked():
        folder.remove_parts()
    assert not any(file.exists() for file in own)
    assert not (tmp_path / "rows").exists()
    assert all(file.exists() for file in others)
    assert (tmp_path / ".git" / "refs").is_dir()
