"""The runs of a session and their files."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from nulltta import NullText, NullTTAError
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import ConstantForm, free_shapes
from nulltta.null_text.identity import identity
from nulltta.runs.request import AlignRequest
from nulltta.ui import history, show
from nulltta.ui.engine import PageEngine
from nulltta.ui.history import HistoryEntry
from nulltta.ui.replay import replayed
from nulltta.ui.run import PageRun

RequestOf = Callable[..., AlignRequest]


def kept(engine: PageEngine, request: AlignRequest, root: Path, steps: int | None = None) -> HistoryEntry:
    """Make a run, stopped after so many steps, and return its entry."""
    stop = threading.Event()
    page_run = PageRun(engine, request, stop)
    for taken, _ in enumerate(page_run, 1):
        if taken == steps:
            stop.set()
    return history.keep(page_run.finished, root)


def test_a_run_keeps_the_files_that_the_command_line_writes(
    engine: PageEngine, request_of: RequestOf, tmp_path: Path
) -> None:
    entry = kept(engine, request_of(prompts=["a cat", "../../etc/passwd"]), tmp_path)
    record = json.loads(Path(entry.result()).read_text())
    assert record["status"] == "finished"
    assert str(tmp_path) not in json.dumps(record)  # the folder on the server is not revealed
    assert all((entry.folder / name).is_file() for result in record["results"] for name in result["files"].values())
    assert sorted(p.name for p in entry.folder.iterdir()) == ["000", "001", "contact-sheet.png", "result.json"]
    with Image.open(str(entry.file(1, "aligned.png"))) as image:
        assert image.text["prompt"] == "../../etc/passwd"
        small = image.size
    assert [picture.size for picture in entry.pair(1)] == [(history.SIDE, history.SIDE)] * 2
    assert small < (history.SIDE, history.SIDE)
    assert NullText.load(str(entry.file(1, "null-text.safetensors"))).prompt == "../../etc/passwd"
    drawn = re.findall(r"<figcaption>([\d.]+)<", show.candidates(entry.finished, 0))
    assert len(drawn) == 2
    assert drawn == sorted(drawn, reverse=True)


def test_a_stopped_run_has_its_picture_and_says_so(engine: PageEngine, request_of: RequestOf, tmp_path: Path) -> None:
    entry = kept(engine, request_of(), tmp_path, steps=1)
    assert json.loads(Path(entry.result()).read_text())["status"] == "interrupted"
    assert entry.file(0, "aligned.png")
    assert entry.file(0, "null-text.safetensors") is None
    assert "Stopped after 1 of 3 steps" in show.done(entry.finished)


def test_a_session_keeps_its_last_runs_and_finds_them_by_thumbnail(
    engine: PageEngine, request_of: RequestOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_RUNS", 2)
    entries = [kept(engine, request_of(prompts=["a cat", "a dog"], seed=seed), tmp_path, steps=1) for seed in range(3)]
    past: list[HistoryEntry] = []
    for entry in entries:
        past = history.added(past, entry)
    assert past == entries[1:]
    assert [entry.folder.exists() for entry in entries] == [False, True, True]
    assert len(history.thumbnails(past)) == 4
    assert history.place(past, 0) == (entries[2], 0)
    assert history.place(past, 3) == (entries[1], 1)


def test_a_downloaded_null_text_replays_its_picture(engine: PageEngine, request_of: RequestOf, tmp_path: Path) -> None:
    entry = kept(engine, request_of(), tmp_path)
    file = entry.file(0, "null-text.safetensors")
    asked = {"model": engine.models[0], "prompt": "", "reward": "brightness"}
    again = replayed(engine, file, seeds="", exact=True, **asked)
    assert "differs" in again.words
    assert torch.allclose(again.images[0], entry.finished.comparisons[0].aligned, atol=1e-6)
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
