"""The rows and the errors that docs/batch.md shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nulltta.cli import main

from .tables import arguments

GUIDE = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()


def test_the_rows_of_the_guide(checkpoint: Path, tmp_path: Path) -> None:
    [good] = re.findall(r"^`(\{.*\})`:$", GUIDE, re.M)
    rows = re.findall(r"^\| `(\{.*)` \| (.+) \|$", GUIDE, re.M)
    assert len(rows) == 6
    table, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    table.write_text("".join(f"{row}\n" for row in (good, *(row for row, _ in rows))))
    assert main(arguments(table, checkpoint, out)) == 1
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    expected = {i: reason for i, (_, reason) in enumerate(rows, 2) if not reason.startswith("none: ")}
    assert {error["row"]: error["reason"] for error in errors} == expected
    assert len(list(out.glob("images/*/*.png"))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "prompts.jsonl"]


def test_the_refusals_of_the_guide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = re.findall(r"^\| (?:a table of )?`(.+)` \| (error: .+) \|$", GUIDE, re.M)
    assert len(given) == 2
    for what, said in given:
        table = tmp_path / "prompts.jsonl"
        table.write_text(f"{what}\n" if what.startswith("{") else '{"prompt": "a"}\n')
        words = [] if what.startswith("{") else what.split()
        assert main(["batch", str(table), "--out", str(tmp_path / "new"), *words]) == 2
        assert capsys.readouterr().err == f"{said}\n"
        assert not (tmp_path / "new").exists()
