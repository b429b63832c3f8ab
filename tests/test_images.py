"""Writing pictures and animations."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
import torch
from PIL import Image

from nulltta import NullTTAConfig
from nulltta.evaluation.comparison import Comparison, Score
from nulltta.images import FRAMES_PER_SECOND, save_video, to_pil
from nulltta.runs.align_writer import AlignWriter
from nulltta.runs.request import AlignRequest, RunSettings

from .command_line import refused


def test_an_animation_has_the_frames_of_its_video(tmp_path: Path) -> None:
    frames = torch.stack([torch.full((3, 8, 8), level) for level in (0.0, 0.5, 1.0)])
    save_video(to_pil(frames), tmp_path / "video.gif", "gif")
    with Image.open(tmp_path / "video.gif") as animation:
        assert animation.n_frames == 3
        assert animation.info["loop"] == 0
        levels = []
        for frame in range(3):
            animation.seek(frame)
            levels.append(animation.convert("L").getpixel((4, 4)))
            assert animation.info["duration"] == pytest.approx(1000 / FRAMES_PER_SECOND, abs=10)
    assert levels == pytest.approx([0, 128, 255], abs=2)


@pytest.mark.parametrize("size", [(32, 48), (17, 23)])
def test_a_film_plays_back_as_its_frames(size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    levels = (torch.full(size, level) for level in (0.1, 0.4, 0.6, 0.9))
    frames = torch.stack([torch.stack([rows.expand(size), columns.expand(size), blue]) for blue in levels])
    path = tmp_path / "video.mp4"
    save_video(to_pil(frames), path, "mp4")
    with av.open(str(path)) as film:
        [stream] = film.streams
        assert stream.average_rate == FRAMES_PER_SECOND
        assert float(stream.duration * stream.time_base) == pytest.approx(4 / FRAMES_PER_SECOND)
        shown = [frame.to_ndarray(format="rgb24")[:height, :width] for frame in film.decode(video=0)]
    assert len(shown) == 4
    for ours, theirs in zip(to_pil(frames), shown, strict=True):
        off = np.abs(np.asarray(ours, dtype=int) - theirs)
        assert off.mean() < 5  # chroma has half the resolution; colours of another standard would be off by 8
        assert off.max() < 20


def test_a_film_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="negative"):
        save_video([Image.new("RGB", (16, 16)), Image.new("RGB", (32, 32))], tmp_path / "video.mp4", "mp4")
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_error_says_what_to_install(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.images.find_spec", lambda name: None if name == "av" else find_spec(name))
    words = ["align", "a cat", "--model", str(checkpoint), "--reward", "brightness", "--out", str(tmp_path / "out")]
    assert refused([*words, "--video-format", "mp4"], capsys).endswith("needs PyAV: pip install 'nulltta[video]'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["gif", "mp4"])
def test_a_video_is_written_as_a_strip_and_as_an_animation(form: Literal["gif", "mp4"], tmp_path: Path) -> None:
    settings = RunSettings(config=NullTTAConfig(), reward="brightness")
    writer = AlignWriter(AlignRequest(prompts=["a cat"], settings=settings, out=tmp_path, video_format=form))
    plain, aligned = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    comparison = Comparison("a cat", 0, plain, aligned, {"brightness": Score(0.4, 0.5)}, [], torch.empty(0))
    writer.add([comparison], {})
    writer.close("finished")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "plain.png", f"plain.{form}", "aligned.png", f"aligned.{form}", "comparison.png", "result.json",
    }  # fmt: skip
    with Image.open(tmp_path / "aligned.png") as strip:
        assert strip.size == (48, 16)
