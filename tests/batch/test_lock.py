"""Only one run at a time may use a folder, and the next goes on where a killed one ended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nulltta.batch.folder import BatchFolder
from nulltta.batch.storage import LocalStorage
from nulltta.cli import main
from nulltta.errors import InvalidValue

from ..command_line import refused
from .tables import MANY, arguments, require_each_row_once, table_of, written

SLOW = """
import pathlib, time
while not pathlib.Path("go").exists():  # a model that takes long to load
    time.sleep(0.02)
def brightness(images, prompts):
    return images.mean((1, 2, 3))
"""


def test_a_refused_run_leaves_the_first_run_alone_which_is_resumed_after_it_was_killed(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first still loads when two others are refused; killed, it loses only the rows in progress."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow_batch_reward.py").write_text(SLOW)
    out = tmp_path / "out"
    words = [*arguments(table_of(MANY, tmp_path), checkpoint, out), "--batch-size", "4"]
    words += ["--reward", "slow_batch_reward:brightness"]
    with subprocess.Popen([sys.executable, "-m", "nulltta", *words]) as first:

        def wait_until(true: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 300  # a busy machine takes long to import torch and diffusers
            while not true() and first.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)

        wait_until((out / ".lock").exists)
        before = sorted(out.rglob("*"))
        for _ in range(2):
            assert "error: another run is writing to" in refused([*words, "--reward", "brightness"], capsys)
            assert sorted(out.rglob("*")) == before
        (tmp_path / "go").touch()
        wait_until(lambda: len(list(out.glob("rows/*/*.json"))) >= 8)
        first.kill()
    rows = list(out.glob("rows/*/*.json"))
    assert 8 <= len(rows) < len(MANY)
    kept = {
        file: at for file, at in written(out).items() if Path(file).stem in {row.stem for row in rows}
    }  # the other files belong to a row in progress
    assert main(words) == 0
    assert kept.items() < written(out).items()
    require_each_row_once(out, MANY, checkpoint)


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
