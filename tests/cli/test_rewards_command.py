"""`nulltta rewards`: the list, and scores of files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch

from nulltta import rewards
from nulltta.cli import main
from nulltta.images import save_png, to_pil
from nulltta.rewards.image_files import read_image

from ..command_line import refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Save three 8-bit pictures of two sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for name, side in (("a.png", 8), ("b.png", 8), ("c.png", 12)):
        save_png(to_pil(torch.rand((1, 3, side, side), generator=generator))[0], folder / name)
    return folder


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["rewards"]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in shown
    first = {line.split()[0]: line.split() for line in lines if line.strip() and line[0] != " "}
    words = shown.split()
    for row in rewards.catalogue():
        assert first[row.name][1] == ("yes" if row.differentiable else "no")
        unit = "GB" if row.gigabytes >= 0.1 else "MB" if row.gigabytes else "–"
        assert unit in first[row.name]
        assert "0.0" not in first[row.name]
        assert all(word in words for word in row.source.split())


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(listed) == list(rewards.REWARDS)
    assert listed["clip"]["present"]
    assert (listed["jpeg"]["differentiable"], listed["pickscore"]["licence"]) == (False, "MIT")


def test_pictures_on_the_command_line_share_one_prompt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(folder / "c.png"), str(folder / "a.png")]
    sums = ["--reward", "2*brightness - jpeg", "--reward", "sharpness"]
    assert main(["rewards", "score", *files, "--prompt", 'a "cat", red', *sums, "--batch-size", "1"]) == 0
    shown = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert list(rows[0]) == ["file", "prompt", "2*brightness - jpeg", "brightness", "jpeg", "sharpness"]
    assert [(row["file"], row["prompt"]) for row in rows] == [(file, 'a "cat", red') for file in files]
    for row in rows:
        image = read_image(Path(row["file"]))[None]
        for name in list(row)[2:]:
            assert float(row[name]) == pytest.approx(float(rewards.load(name)(image, [""])), rel=1e-5)
    assert shown.err == ""  # no progress bar without a terminal


def test_a_folder_is_scored_by_its_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "prompts.csv", tmp_path / "new" / "scores.csv"
    table.write_text('file,prompt,of\nc.png,"a café, red",x\na.png,a fox,y\nb.png,two foxes,z\n')
    assert main(["rewards", "score", str(folder), "--table", str(table), "--reward", "clip", "--out", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert [(row["file"], row["prompt"]) for row in rows] == [
        ("c.png", "a café, red"), ("a.png", "a fox"), ("b.png", "two foxes")
    ]  # fmt: skip
    clip = rewards.load("clip", device="cpu")
    for row in rows:
        image = read_image(folder / row["file"])[None]
        assert float(row["clip"]) == pytest.approx(float(clip(image, [row["prompt"]])), rel=1e-4)
    assert [path.name for path in out.parent.iterdir()] == ["scores.csv"]


A = "{folder}/a.png"
MISTAKES = {
    "no prompt": ([A], "--prompt is missing: say what the pictures should show"),
    "no table": (["{folder}", "--table", "{tmp}/none.csv"], "--table: cannot read prompts from '{tmp}/none.csv'"),
    "empty prompt": ([A, "--prompt", " "], "a prompt is empty"),
    "bytes": ([A, "--prompt", "\udcff"], "UTF-8"),
    "absent": ([A, "{folder}/e.png", "--prompt", "x"], "e.png': there is no such file"),
    "a folder": (["{folder}", "--prompt", "x"], "is a folder"),
    "both": (
        ["{folder}", "--prompt", "x", "--table", "{tmp}/good.csv"],
        "--prompt is for all pictures: give it or a CSV file",
    ),
    "no folder": ([A, "--table", "{tmp}/good.csv"], "one folder"),
    "unknown reward": (
        [A, "--prompt", "x", "--reward", "brightnes"],
        "--reward: unknown reward 'brightnes': did you mean 'brightness'",
    ),
    "malformed": ([A, "--prompt", "x", "--reward", "0.7 * clip +"], "malformed at its end"),
    "unmeasured": ([A, "--prompt", "x", "--reward", "z(sharpness)"], "as in z(sharpness, 0.2, 0.01)"),
    "two for a source": (
        [A, "--prompt", "x", "--reward-source", "a/b", "--reward", "clip"],
        "source goes with one reward",
    ),
    "device": ([A, "--prompt", "x", "--device", "abacus"], "--device 'abacus'"),
    "batch size": ([A, "--prompt", "x", "--batch-size", "0"], "--batch-size must be a whole number, 1 or more"),
    "no picture": (["{tmp}/good.csv", A, "--prompt", "x"], "cannot read image '{tmp}/good.csv'"),
    "cut short": (["{folder}", "--table", "{tmp}/good.csv"], "d.png': it is not an image"),
    "columns": (["{folder}", "--table", "{tmp}/columns.csv"], "needs the columns file and prompt"),
    "out is a picture": ([A, "--prompt", "x", "--out", "{folder}/a.png"], "is one of the pictures: give another file"),
    "out is a folder": ([A, "--prompt", "x", "--out", "{tmp}"], "is a folder"),
    "out is in a file": ([A, "--prompt", "x", "--out", "{tmp}/good.csv/scores.csv"], "--out: cannot write to"),
}


@pytest.mark.parametrize(("words", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_in_one_line_and_leaves_no_files(
    words: list[str], expected: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.csv").write_text("file,prompt\na.png,x\nb.png,x\nc.png,x\nd.png,x\n")
    (tmp_path / "columns.csv").write_text("name,text\na.png,x\n")
    (folder / "d.png").write_bytes((folder / "c.png").read_bytes()[:100])  # the last file of a good table is damaged
    before = sorted(tmp_path.rglob("*"))
    given = [word.format(tmp=tmp_path, folder=folder) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "scores.csv")]
    line = refused(["rewards", "score", *given, "--reward", "brightness", *out], capsys)
    assert expected.format(tmp=tmp_path, folder=folder) in line
    assert sorted(tmp_path.rglob("*")) == before
