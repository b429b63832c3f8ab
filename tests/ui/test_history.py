"""The runs of a session and their files."""

from __future__ import annotations

import json
import pickle
import re
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from nulltta import NullText, NullTTAError
from nulltta.images import to_pil
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import ConstantForm, free_shapes
from nulltta.null_text.identity import identity
from nulltta.runs.prompt_file import read_rows
from nulltta.runs.request import AlignRequest
from nulltta.ui import history, show
from nulltta.ui.engine import PageEngine
from nulltta.ui.history import SIDE, HistoryEntry, RunLibrary
from nulltta.ui.replay import replayed
from nulltta.ui.run import PageRun

RequestOf = Callable[..., AlignRequest]


@pytest.fixture
def library(tmp_path: Path) -> RunLibrary:
    """Return a library of runs in a folder of its own."""
    return RunLibrary(tmp_path)


def kept(engine: PageEngine, request: AlignRequest, library: RunLibrary, steps: int | None = None) -> HistoryEntry:
    """Make a run, stopped after so many steps, and return its entry."""
    stop = threading.Event()
    page_run = PageRun(engine, request, stop)
    for taken, _ in enumerate(page_run, 1):
        if taken == steps:
            stop.set()
    return library.keep(page_run.finished, {"seed": request.seed}, show.done(page_run.finished), "a browser")


def test_a_run_keeps_the_files_that_the_command_line_writes(
    engine: PageEngine, request_of: RequestOf, library: RunLibrary, tmp_path: Path
) -> None:
    entry = kept(engine, request_of(prompts=["a cat", "../../etc/passwd"]), library)
    record = json.loads(Path(entry.record).read_text())
    assert record["status"] == "finished"
    assert str(tmp_path) not in json.dumps(record)  # the folder on the server is not revealed
    written = {name for result in record["results"] for name in result["files"].values()}
    with zipfile.ZipFile(entry.archive) as archive:
        assert {*written, "result.json", "contact-sheet.png"} == set(archive.namelist())
    shown = entry.pictures[1]
    with Image.open(shown.files["aligned"]) as image:
        assert image.text["prompt"] == "../../etc/passwd"  # type: ignore[attr-defined]
        assert "nulltta align" in image.text["command"]  # type: ignore[attr-defined]
        assert image.size == (SIDE, SIDE)  # enlarged
    assert NullText.load(shown.files["null text"]).prompt == "../../etc/passwd"
    assert len(shown.candidates) == 2
    assert shown.candidates[0][1] >= shown.candidates[1][1]
    assert "../../etc/passwd" in show.answer(entry, 1)


def test_several_pictures_of_a_prompt_are_recorded_with_their_seeds(
    engine: PageEngine, request_of: RequestOf, library: RunLibrary
) -> None:
    asked = request_of(prompts=["a cat", "a cat"], own_seeds=[4, 5], prompts_file=Path("prompts.jsonl"))
    entry = kept(engine, asked, library)
    assert [picture.seed for picture in entry.pictures] == [4, 5]
    assert "different pictures of 2" in show.answer(entry, 0)
    with zipfile.ZipFile(entry.archive) as archive:
        archive.extract("prompts.jsonl", entry.folder)
    assert [row.seed for row in read_rows([], entry.folder / "prompts.jsonl")] == [4, 5]
    assert "--prompts prompts.jsonl" in json.loads(Path(entry.record).read_text())["command"]


def test_a_stopped_run_has_its_picture_and_says_so(
    engine: PageEngine, request_of: RequestOf, library: RunLibrary
) -> None:
    entry = kept(engine, request_of(), library, steps=1)
    assert json.loads(Path(entry.record).read_text())["status"] == "interrupted"
    assert set(entry.pictures[0].files) == {"plain", "aligned", "thumbnail"}
    assert "Stopped after 1 of 3 steps" in entry.said


def test_runs_hold_no_tensors_and_the_oldest_files_are_deleted(
    engine: PageEngine, request_of: RequestOf, library: RunLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_KEPT", 1)
    entries = [kept(engine, request_of(prompts=["a cat", "a dog"], seed=seed), library, steps=1) for seed in range(2)]
    assert [library.find(name) for name in (entries[0].name, entries[1].name, "../..")] == [None, entries[1], None]
    assert library.of_browser("a browser") == entries[1:]
    assert library.of_browser("another") == []
    assert [entry.folder.exists() for entry in entries] == [False, True]
    assert len(history.thumbnails(entries)) == 4
    assert history.places(entries) == [(entries[i].name, b) for i in (1, 0) for b in (0, 1)]
    assert len(pickle.dumps(entries[1])) < 20_000  # paths and numbers
    monkeypatch.setattr(history, "MAX_AGE", 0.0)
    assert library.of_browser("a browser") == []


def test_a_downloaded_null_text_replays_its_picture(engine: PageEngine, request_of: RequestOf, tmp_path: Path) -> None:
    entry = kept(engine, request_of(), RunLibrary(tmp_path))
    file = entry.pictures[0].files["null text"]
    asked = {"model": engine.models[0], "prompt": "", "reward": "brightness"}
    again = replayed(engine, file, seeds="", exact=True, **asked)
    assert "differs" in again.words
    with Image.open(entry.folder / "run" / "aligned.png") as recorded:
        assert to_pil(again.images)[0].tobytes() == recorded.tobytes()
    assert not torch.equal(again.plain, again.images)
    others = replayed(engine, file, seeds="0,3", exact=False, **asked)
    assert [[caption.split(":")[0] for caption in pair] for pair in others.captions] == [
        ["plain, seed 0", "replay, seed 0"], ["plain, seed 3", "replay, seed 3"],
    ]  # fmt: skip
    shown = re.findall(r"<figcaption>(.*?)</figcaption>", show.replays(others))
    assert shown == [caption for pair in others.captions for caption in pair]


def test_a_file_that_is_not_a_null_text_is_named_as_it_was_uploaded(engine: PageEngine, tmp_path: Path) -> None:
    (tmp_path / "holiday.safetensors").write_bytes(b"no")
    asked = {"model": engine.models[0], "prompt": "", "seeds": "0", "exact": False, "reward": ""}
    with pytest.raises(NullTTAError, match=r"'holiday.safetensors' is damaged") as refused:
        replayed(engine, str(tmp_path / "holiday.safetensors"), **asked)  # type: ignore[arg-type]
    assert str(tmp_path) not in str(refused.value)
    with pytest.raises(NullTTAError, match="no null text"):
        replayed(engine, None, **asked)  # type: ignore[arg-type]


def test_a_fitted_null_text_replays_any_prompt(engine: PageEngine, tmp_path: Path) -> None:
    model = engine.model(engine.models[0])
    _, null = model.encode(["a dog"], [""])
    form = ConstantForm(free_shapes(null), 1)
    for parameter in form.parameters():
        parameter.data += 0.3
    about = {"model": identity(model), "form": "constant",
             "config": {"num_inference_steps": 2, "guidance_scale": 3.0}}  # fmt: skip
    FittedNullText([500.0], form.requires_grad_(False), (0, 1), about).save(tmp_path / "fitted.safetensors")
    asked = {"model": engine.models[0], "seeds": "0", "exact": False, "reward": ""}
    found = replayed(engine, str(tmp_path / "fitted.safetensors"), prompt="a dog", **asked)  # type: ignore[arg-type]
    assert not torch.allclose(found.plain, found.images, atol=1e-3)
    with pytest.raises(NullTTAError, match="was fitted for all prompts"):
        replayed(engine, str(tmp_path / "fitted.safetensors"), prompt="", **asked)  # type: ignore[arg-type]
