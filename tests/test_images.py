"""Writing pictures and animations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from nulltta import NullTTAConfig
from nulltta.evaluation.comparison import Comparison, Score
from nulltta.images import FRAMES_PER_SECOND, save_gif, to_pil
from nulltta.runs.align_writer import AlignWriter
from nulltta.runs.request import AlignRequest, RunSettings


def test_an_animation_has_the_frames_of_its_video(tmp_path: Path) -> None:
    frames = torch.stack([torch.full((3, 8, 8), level) for level in (0.0, 0.5, 1.0)])
    save_gif(to_pil(frames), tmp_path / "video.gif")
    with Image.open(tmp_path / "video.gif") as animation:
        assert animation.n_frames == 3
        assert animation.info["loop"] == 0
        levels = []
        for frame in range(3):
            animation.seek(frame)
            levels.append(animation.convert("L").getpixel((4, 4)))
            assert animation.info["duration"] == pytest.approx(1000 / FRAMES_PER_SECOND, abs=10)
    assert levels == pytest.approx([0, 128, 255], abs=2)


def test_a_video_is_written_as_a_strip_and_as_an_animation(tmp_path: Path) -> None:
    settings = RunSettings(config=NullTTAConfig(), reward="brightness")
    writer = AlignWriter(AlignRequest(prompts=["a cat"], settings=settings, out=tmp_path))
    plain, aligned = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    comparison = Comparison("a cat", 0, plain, aligned, {"brightness": Score(0.4, 0.5)}, [], torch.empty(0))
    writer.add([comparison], {})
    writer.close("finished")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"plain.png", "plain.gif", "aligned.png", "aligned.gif", "comparison.png", "result.json"}
    with Image.open(tmp_path / "aligned.png") as strip:
        assert strip.size == (48, 16)
