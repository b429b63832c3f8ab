"""Turning rows into requests, and refusing bad ones."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from nulltta.batch.tasks import RowFailure, RowTask, batches, require_known_columns, tasks
from nulltta.config import NullTTAConfig
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import NullTTAError
from nulltta.runs.request import RunSettings
from nulltta.runs.table import TableRow

COMMON = RunSettings(config=NullTTAConfig(), model="some/model", reward="brightness")


def of(*cells: dict[str, Any], settings: dict[str, Any] | None = None) -> Any:
    rows = [TableRow(i, cell) for i, cell in enumerate(cells, start=1)]
    require_known_columns(rows)
    found = list(tasks(rows, COMMON, settings, seed=4))
    return [each for each in found if isinstance(each, RowTask)], [
        each for each in found if isinstance(each, RowFailure)
    ]


def name_of(cells: dict[str, Any], **changes: Any) -> str:
    """Return the name of a row's files under settings with changes."""
    [task] = tasks([TableRow(1, cells)], replace(COMMON, **changes), seed=4)
    assert isinstance(task, RowTask)
    return task.name


def test_a_row_overrides_the_settings_of_all_rows() -> None:
    found, failures = of(
        {"prompt": "a"},
        {"prompt": "b", "seed": 9, "negative_prompt": "n", "guidance_scale": 3, "inner_steps": [1, 2.0], "id": 12},
        settings={"num_inference_steps": 20, "guidance_scale": 5.0},
    )
    assert failures == []
    first, second = (task.request for task in found)
    assert [task.id for task in found] == ["1", "12"]
    assert (first.prompts, first.seed, first.negative_prompt) == (["a"], 4, "")
    assert first.settings.config == NullTTAConfig(num_inference_steps=20, guidance_scale=5.0)
    assert (second.prompts, second.seed, second.negative_prompt) == (["b"], 9, "n")
    assert second.settings.config == NullTTAConfig(num_inference_steps=20, guidance_scale=3, inner_steps=(1, 2))
    assert (second.settings.reward, second.settings.model) == ("brightness", "some/model")


BAD = {
    "no prompt": ({"seed": 1}, "a prompt is empty"),
    "blank prompt": ({"prompt": " \n"}, "a prompt is empty"),
    "prompt of another type": ({"prompt": 5}, "prompt must be text, not 5"),
    "half a letter": ({"prompt": "\ud800"}, "not UTF-8"),
    "negative seed": ({"prompt": "a", "seed": -1}, "seed must be a whole number, 0 or more and below 2^63, not -1"),
    "seed in words": ({"prompt": "a", "seed": "one"}, "seed must be a whole number"),
    "half a seed": ({"prompt": "a", "seed": 0.5}, "not 0.5"),
    "huge seed": ({"prompt": "a", "seed": 2**63}, "below 2^63"),
    "true seed": ({"prompt": "a", "seed": True}, "not True"),
    "empty id": ({"prompt": "a", "id": " "}, "its id must be text"),
    "list of ids": ({"prompt": "a", "id": [1]}, "its id must be text or a whole number"),
    "id that is not text": ({"prompt": "a", "id": "\ud800"}, "not UTF-8"),
    "duplicate id": ({"prompt": "a", "id": 7}, "its id is that of row 1"),
    "guidance": ({"prompt": "a", "guidance_scale": 1}, "guidance_scale must be above 1, not 1"),
    "scale of another guidance": ({"prompt": "a", "guidance": "nag", "guidance_scale": 9}, "the guidance is nag"),
    "word for a number": ({"prompt": "a", "learning_rate": "fast"}, "learning_rate must be a number"),
    "list for a number": ({"prompt": "a", "budget": [1]}, "budget must be a single value, not [1]"),
    "number for a list": ({"prompt": "a", "inner_steps": 5}, "inner_steps must be two numbers"),
    "words in a list": ({"prompt": "a", "optimise_between": ["a", "b"]}, "optimise_between must be two numbers"),
    "nan": ({"prompt": "a", "kl_weight": float("nan")}, "kl_weight must be a number"),
    "hundreds of digits": ({"prompt": "a", "kl_weight": 10**400}, "int too large"),
}


@pytest.mark.parametrize(("cells", "says"), BAD.values(), ids=BAD)
def test_a_bad_row_is_a_failure_that_does_not_stop_the_others(cells: dict[str, Any], says: str) -> None:
    found, [failure] = of({"prompt": "first", "id": "7"}, cells, {"prompt": "last"})
    assert [task.prompt for task in found] == ["first", "last"]
    assert failure.row == 2
    assert says in failure.reason


@pytest.mark.parametrize("field", [field.name for field in fields(NullTTAConfig)])
@pytest.mark.parametrize("value", [{}, [], [[]], "", "\ud800", -1, 1e400, True, [None, None], ["a"], {"a": 1}])
def test_a_bad_cell_does_not_stop_the_batch(field: str, value: Any) -> None:
    found, failures = of({"prompt": "a", field: value}, {"prompt": "b"})
    assert len(found) + len(failures) == 2
    assert "b" in [task.prompt for task in found]


def test_an_unknown_column_refuses_the_table() -> None:
    with pytest.raises(NullTTAError, match="unknown column 'promt' in row 2: did you mean 'prompt'"):
        of({"prompt": "a"}, {"promt": "b"}, {"promt": "c"})
    with pytest.raises(NullTTAError, match="there is no column 'prompt'"):
        of({"seed": 1})


def test_a_rows_name_depends_on_all_its_settings_and_contains_no_text_of_users() -> None:
    cells = [
        {"prompt": "a", "id": "x"}, {"prompt": "a", "id": "../../x"}, {"prompt": "b", "id": "x"},
        {"prompt": "a", "id": "x", "seed": 5}, {"prompt": "a", "id": "x", "negative_prompt": "n"},
        {"prompt": "a", "id": "x", "eta": 0.5},
    ]  # fmt: skip
    names = [of(cell)[0][0].name for cell in cells]
    others = [
        name_of(cells[0], **change) for change in ({"model": "other/model"}, {"reward": "clip"}, {"method": "plain"})
    ]
    assert len({*names, *others}) == len(names) + len(others)
    assert all(re.fullmatch("[0-9a-f]{20}", name) for name in (*names, *others))
    again, _ = of({"prompt": "z"}, cells[0])
    assert again[1].name == names[0]  # the name does not depend on the row's place


def test_a_rows_name_follows_what_its_pipeline_is_called_with_and_not_where_it_runs(tmp_path: Path) -> None:
    """A batch that is resumed under another call must not take the old pictures for its own."""
    picture, renamed = tmp_path / "a.png", tmp_path / "b.png"

    def name(**changes: Any) -> str:
        return name_of({"prompt": "a"}, **changes)

    Image.new("RGB", (8, 8), "red").save(picture)
    Image.new("RGB", (8, 8), "red").save(renamed)
    red = [name(image=str(picture)), name(image=str(renamed))]
    assert red[0] == red[1]
    changes: list[dict[str, Any]] = [
        {}, {"height": 16}, {"height": 32}, {"width": 16}, {"num_frames": 5}, {"strength": 0.5}, {"mask": str(picture)},
        {"call": ("clip_skip=1",)}, {"call": ("clip_skip=2",)}, {"call": (f"control_image=@{picture}",)},
        {"reward_dtype": "float16"}, {"reward_source": "elsewhere"}, {"base_model": "other/base"}, {"dtype": "float16"},
    ]  # fmt: skip
    names = {*red, *(name(**change) for change in changes)}
    Image.new("RGB", (8, 8), "blue").save(picture)
    names |= {name(image=str(picture)), name(mask=str(picture))}
    assert len(names) == 1 + len(changes) + 2
    learnt = tmp_path / "null.safetensors"  # a fit writes its file at every best validation
    learnt.write_bytes(b"1")
    first = name(start=str(learnt))
    learnt.write_bytes(b"2")
    assert len({name(), first, name(start=str(learnt))}) == 3
    same: list[dict[str, Any]] = [{"device": "cuda"}, {"offload": "model"}, {"compile": True}, {"batch_size": 2}]
    assert {name(**change) for change in (*same, {"micro_batch": 1})} == {name()}


def test_a_picture_that_cannot_be_read_refuses_the_batch(tmp_path: Path) -> None:
    with pytest.raises(NullTTAError, match="image cannot be read"):
        name_of({"prompt": "a"}, image=str(tmp_path / "none.png"))


def test_compatible_rows_share_a_batch() -> None:
    found, _ = of(*({"prompt": f"p{i}", "eta": [1.0, 0.5][i % 2], "seed": i} for i in range(7)), {"prompt": "n",
                  "negative_prompt": "n"})  # fmt: skip
    rows = [[task.row for task in batch] for batch in batches(found, 3)]
    assert rows == [[1, 3, 5], [2, 4, 6], [7], [8]]


def test_a_row_waits_only_so_long_for_rows_that_can_share_its_batch() -> None:
    cells = ({"prompt": "a", "seed": i, "guidance_scale": 1.5 + i / 1000} for i in range(1500))
    rows = (TableRow(i, cell) for i, cell in enumerate(cells, start=1))
    found = batches((task for task in tasks(rows, COMMON) if isinstance(task, RowTask)), 8)
    assert [task.row for task in next(found)] == [1]
    assert next(rows).number < 1100  # the rest of the table has not been read


def test_a_rows_name_does_not_depend_on_how_the_models_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    monkeypatch.chdir(tmp_path)
    spelt = [tmp_path / "model", "model", "./model/", "../" + tmp_path.name + "/model", "link"]
    assert len({name_of({"prompt": "a"}, model=str(path)) for path in spelt}) == 1


def test_the_null_text_that_ships_is_told_by_its_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file is: a row that was finished under another one counts as new."""
    as_it_is = name_of({"prompt": "a"}, start="embedded")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another null text")
    monkeypatch.setitem(cast(dict[str, Any], WORLDS), "embedded", replace(WORLDS["embedded"], null_text=other))
    assert name_of({"prompt": "a"}, start="embedded") != as_it_is
