"""Training prompts of every kind of source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from nulltta.errors import InvalidValue
from nulltta.runs.prompt_sources import training_prompts

PROMPTS = ["a cat", "a dog, sleeping", "3"]


def _table(path: Path, column: str = "prompt", cells: Any = PROMPTS) -> Path:
    rows = [{column: cell, "id": number} for number, cell in enumerate(cells)]
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".csv":
            path.write_text("\n".join([f"id,{column}", *(f'{row["id"]},"{row[column]}"' for row in rows)]) + "\n")
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["prompts.jsonl", "prompts.csv", "prompts.parquet"])
@pytest.mark.parametrize("column", ["prompt", "caption", "text"])
def test_a_table_gives_its_column_of_prompts(tmp_path: Path, name: str, column: str) -> None:
    assert training_prompts(str(_table(tmp_path / name, column))) == PROMPTS


def test_any_other_file_has_one_prompt_per_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.list"
    path.write_text("a cat\n\n# a comment\na dog, sleeping\n3\n")
    assert training_prompts(str(path)) == PROMPTS


def test_a_dataset_gives_the_prompts_of_its_training_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "user" / "dataset"
    folder.mkdir(parents=True)
    _table(folder / "train.parquet", "caption")
    _table(folder / "test.parquet", "caption", ["a prompt of the test split"])
    assert training_prompts(str(folder)) == PROMPTS


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("cells.csv", r"'.*cells.csv' has none of the columns prompt, caption, text: it has id, words"),
        ("blank.jsonl", r"row 2 of '.*blank.jsonl', column 'prompt': a prompt is empty"),
        ("missing.jsonl", r"row 2 of '.*missing.jsonl', column 'prompt'"),
        ("broken.jsonl", r"row 1 of '.*broken.jsonl' cannot be read: it is not JSON"),
        ("bare.jsonl", r"none of the columns prompt, caption, text: it has none at all"),
        ("prompts.json", r"is of a kind that is not read: give a .jsonl, .csv, .parquet file"),
        (300 * "a", r"cannot be read: File name too long"),
        ("none.txt", r"'.*none.txt' cannot be read: No such file"),
        ("none.parquet", r"cannot read '.*none.parquet': .*No such file"),
        ("empty", r"'.*empty' does not load as a dataset"),
    ],
)
def test_a_source_without_prompts_is_refused(tmp_path: Path, source: str, reason: str) -> None:
    _table(tmp_path / "cells.csv", "words")
    _table(tmp_path / "blank.jsonl", cells=["a cat", " "])
    _table(tmp_path / "missing.jsonl", cells=["a cat", None])
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a cat"\n')
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare.jsonl").write_text("{}\n")
    (tmp_path / "prompts.json").write_text('[{"prompt": "a cat"}]')
    with pytest.raises(InvalidValue, match=reason) as caught:
        training_prompts(str(tmp_path / source), "validation")
    assert caught.value.field == "validation"


def test_a_dataset_of_a_hub_that_does_not_answer_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nulltta.hub.reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(InvalidValue, match=r"no file 'user/dataset', and the hub does not answer \(offline\)"):
        training_prompts("user/dataset")
