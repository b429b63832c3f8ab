"""The Ray engine, on a cluster of this machine's CPUs."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nulltta import NullTTAConfig
from nulltta.batch.ray_engine import RayEngineFactory
from nulltta.cli import main
from nulltta.runs.ray import shares
from nulltta.runs.request import RunSettings

from .tables import MANY, arguments, require_each_row_once, table_of, written


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "expected"),
    [
        ([{"CPU": 16.0}], None, None, (1, {"num_cpus": 16})),
        ([{"CPU": 16.0}], 3, None, (3, {"num_cpus": 5})),
        ([{"CPU": 16.0}, {"CPU": 4.0}, {"memory": 1.0}], None, None, (2, {"num_cpus": 8})),
        ([{"CPU": 16.0}, {"CPU": 4.0}], 3, None, (3, {"num_cpus": 5})),
        ([{"CPU": 2.0}], 8, None, (8, {"num_cpus": 1})),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}], None, None, (6, {"num_gpus": 1})),
        ([{"CPU": 8.0, "GPU": 2.0}], 4, "cuda", (4, {"num_gpus": 1})),
        ([{"CPU": 8.0, "GPU": 2.0}], None, "cpu", (1, {"num_cpus": 8})),
        ([{"CPU": 8.0}], None, "cuda", (1, {"num_gpus": 1})),
    ],
)
def test_a_worker_takes_a_gpu_or_its_share_of_the_cpus(nodes, workers, device, expected) -> None:
    assert shares(nodes, workers, device) == expected


def test_a_null_text_is_found_from_any_workers_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("null.safetensors").touch()
    used: list[RunSettings] = []
    ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=OSError), shutdown=lambda: None)
    replaced = {
        "require_ray": lambda _: ray, "connect": lambda *_: None, "machines": lambda _: [{"CPU": 1.0}],
        "_outcomes": lambda *given: used.append(given[2][0]) or iter(()),
    }  # fmt: skip
    for name, stand_in in replaced.items():
        monkeypatch.setattr(f"nulltta.batch.ray_engine.{name}", stand_in)
    settings: Any = RunSettings(config=NullTTAConfig(), reward="clip", start="null.safetensors")
    folder: Any = None
    assert list(RayEngineFactory()(settings, folder)([], lambda *_: None)) == []
    assert used[0].start == str(tmp_path / "null.safetensors")


def test_without_ray_the_error_says_what_to_install(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = arguments(table_of(MANY, tmp_path), checkpoint, tmp_path / "out")
    assert main([*words, "--engine", "ray"]) == 2
    assert "pip install 'nulltta[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "no.such.host.invalid:6379"])
def test_an_address_that_does_not_answer_is_refused_in_one_line(
    address: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    words = arguments(table_of(MANY, tmp_path), checkpoint, tmp_path / "out")
    assert main([*words, "--engine", "ray", "--ray-address", address]) == 2
    assert f"error: no Ray cluster at '{address}': " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default")  # Ray's own
def test_a_killed_worker_is_replaced_and_its_rows_are_sampled_again(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    out = tmp_path / "out"
    words = [*arguments(table_of(MANY, tmp_path), checkpoint, out), "--batch-size", "2"]
    first: dict[str, int] = {}  # when each file was first seen
    killed: set[int] = set()
    ended = threading.Event()

    def watch_and_kill() -> None:
        while not ended.wait(0.05):
            for file, at in written(out).items():
                first.setdefault(file, at)
            rows = list(out.glob("rows/*/*.json"))
            if len(rows) >= 4 and not killed:
                killed.add(int(json.loads(rows[0].read_text())["worker"].rpartition(":")[2]))
                os.kill(min(killed), signal.SIGKILL)

    watching = threading.Thread(target=watch_and_kill)
    watching.start()
    try:
        assert main([*words, "--engine", "ray", "--ray-address", "local", "--workers", "2"]) == 0
    finally:
        ended.set()
        watching.join()
    assert killed
    done = written(out)
    records = {file for file in first if file.startswith("rows/")}
    assert {file: done[file] for file in records} == {file: first[file] for file in records}  # none was sampled twice
    require_each_row_once(out, MANY, checkpoint)
