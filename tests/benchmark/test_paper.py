"""The published experiments end to end, on tiny checkpoints of the model and of every reward."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from nulltta import NullTTAConfig
from nulltta.benchmark.paper import MEASURES, TABLES, plan_of
from nulltta.cli import main

from ..rewards.checkpoints import aesthetic_directory, clip_directory, hps_directory, imagereward_directory


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rewards")
    makers = (clip_directory, hps_directory, aesthetic_directory, imagereward_directory)
    for name in MEASURES:
        (folder / name).mkdir()
    return {name: make(folder / name) for name, make in zip(MEASURES, makers, strict=True)}


def flags(sources: dict[str, Path]) -> list[str]:
    return [word for name, place in sources.items() for word in ("--source", f"{name}={place}")]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\na dog\n")
    return file


@pytest.mark.parametrize("table", [1, 6])
def test_a_table_is_run_and_shown_beside_the_published_one(
    table: int, sources: dict[str, Path], checkpoint: Path, prompts: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    needed = {name: place for name, place in sources.items() if name in TABLES[table].measures}
    command = ["bench", "paper", str(prompts), "--table", str(table), "--model", str(checkpoint), *flags(needed)]
    command += ["--num-inference-steps", "2", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    title, header, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert title[0].endswith("/ published")
    assert header == ["", *TABLES[table].measures]
    assert [line[0] for line in lines] == ["plain", "null-tta"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for label, *cells in lines:
        for name, cell in zip(TABLES[table].measures, cells, strict=True):
            ours, published = cell.rsplit(" / ", 1)
            known = TABLES[table].published.get(label, {})
            assert published == (f"{known[name]:g}" if name in known else "–")
            mean = fmean(score(row, name) for row in rows if row["arm"].endswith(f"|{label}"))
            assert float(ours.split()[0]) == pytest.approx(mean, rel=2e-3)
    assert main(["bench", "report", str(tmp_path / "out"), "--out", str(tmp_path / "pages")]) == 0


def score(row: dict[str, Any], name: str) -> float:
    """Return the score of a measure, wherever its weights come from."""
    return float(next(value for measure, value in row["scores"].items() if measure.partition(":")[0] == name))


def test_a_dry_run_prints_the_cost_and_samples_nothing(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["bench", "paper", str(prompts), "--table", "7", "--seeds", "3", "--dry-run", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "stable-diffusion-xl-base-1.0, 2 prompts, seeds 42, 43, 44" in said.err
    assert "plain: 6 images, 200 denoiser evaluations each" in said.err
    each = int(re.findall(r"null-tta: 6 images, (\d+) denoiser evaluations each", said.err)[0])
    assert f"together 12 images, {6 * 200 + 6 * each} denoiser evaluations" in said.err
    assert "pickscore: 3.9 GB to download" in said.err
    assert "13.9 GB" in said.err
    assert said.out == ""
    assert not out.exists()


@pytest.mark.parametrize("number", TABLES)
def test_every_row_is_the_published_configuration_except_as_its_label_says(number: int) -> None:
    table = TABLES[number]
    plan = plan_of(table, table.model, ["a"], 1, {}, {}, 4)
    for arm in plan.arms[1:]:
        config, published = NullTTAConfig(**arm.config), NullTTAConfig()
        different = {name for name in vars_of(config) if vars_of(config)[name] != vars_of(published)[name]}
        assert different <= set(table.rows[arm.name]) | ({"reward_weight"} if number == 6 else set())
    assert set(table.published) <= {arm.name for arm in plan.arms}


def vars_of(config: NullTTAConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


MISTAKES = {
    "no such table": (["--table", "8"], "--table must be 7 or less"),
    "no such file": (["--table", "1"], "cannot be read"),
    "source": (["--table", "1", "--source", "hpsv2"], "--source must be as in hpsv2=weights/hps"),
    "source of another": (["--table", "6", "--source", "hpsv2=x"], "no reward 'hpsv2'"),
    "seeds": (["--table", "1", "--seeds", "9"], "give 1 to 3"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_in_one_line(
    mistake: str, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, says = MISTAKES[mistake]
    file = tmp_path / "missing.txt" if mistake == "no such file" else prompts
    assert main(["bench", "paper", str(file), *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
