"""The benchmark of the scenes world, on weights of two training steps: everything that it reports is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nulltta.benchmark.store import BenchmarkFolder
from nulltta.cli import main
from nulltta.embedded.scenes.grammar import CATEGORIES
from nulltta.embedded.worlds import WORLDS

TARGET = "scenes-clip"


def test_the_benchmark_of_the_scenes_world(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = replace(WORLDS["scenes"], weights=trained / "w")
    monkeypatch.setitem(WORLDS, "scenes", world)  # type: ignore[arg-type]
    monkeypatch.setattr("nulltta.benchmark.difficulty.DRAWS", range(1000, 1001))
    monkeypatch.setattr("nulltta.benchmark.units.SEEDS", (0,))
    (tmp_path / "prompts.txt").write_text("\n".join(world.test_prompts(6)))
    (tmp_path / "tuning.txt").write_text("\n".join(world.tuning_prompts(3)))
    files = ["--prompts-file", str(tmp_path / "prompts.txt"), "--tuning-file", str(tmp_path / "tuning.txt")]
    names = [word for name in ("plain", "best-of-n") for word in ("--contender", name)]
    short = ["--num-inference-steps", "2", "--threads", "1", "--seeds", "1", "--budget", "8", "--gallery", "0"]
    out = tmp_path / "run"
    (tmp_path / "settings.json").write_text("[]")
    settings = ["--settings", str(tmp_path / "settings.json")]
    assert main(["bench", "run", "--model", "scenes", *files, *names, *short, *settings, "--out", str(out)]) == 0
    rows = BenchmarkFolder(out).rows()
    judged = {"scenes-conv", "scenes-questions", "facts", "all right", "nearest render"}
    assert {name for row in rows for name in row.scores} == {TARGET, *judged, "colourfulness", "high-frequency"}
    assert {row.arm.split("|")[0] for row in rows} == {TARGET}
    assert len(rows) == 2 * 6
    assert all(row.features is not None for row in rows)
    assert main(["bench", "report", str(out), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.md").read_text()
    [header] = [line for line in page.splitlines() if line.startswith("| everything right")]
    thirds = ["hardest third (2)", "middle third (2)", "easiest third (2)"]
    kinds = {f"{category} (1)" for category in CATEGORIES}
    cells = [cell.strip() for cell in header.strip("| ").split("|")]
    assert cells[:5] == ["everything right, %", "all", *thirds]
    assert set(cells[5:]) == kinds
    assert "Δ scenes-conv" in page
    assert (tmp_path / "all-right-0-0.png").exists()
