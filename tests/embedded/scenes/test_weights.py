"""The shipped weights of the scenes world: half of what stock diffusers draws is right, and the scorers can tell."""

from __future__ import annotations

import pytest
import torch

from nulltta.embedded.scenes import WEIGHTS
from nulltta.embedded.scenes.judge import SceneJudge
from nulltta.embedded.scenes.prompts import test_prompts as reported_prompts
from nulltta.embedded.scenes.scorers import NAMES, load_scorer
from nulltta.embedded.scenes.train.scorers import accuracy
from nulltta.embedded.train.sampling import sample_images


def test_the_weights_are_small() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file() and "turbo" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.suffix for path in files} <= {".json", ".safetensors"}


def test_plain_sampling_shows_all_of_a_prompt_in_about_half_of_the_pictures() -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS / "sd")
    pipe.set_progress_bar_config(disable=True)
    prompts = reported_prompts(18)
    right = SceneJudge().all_right(sample_images(pipe, prompts, steps=5), prompts)
    assert 0.15 < float(right.float().mean()) < 0.8


@pytest.mark.parametrize("name", NAMES)
def test_a_scorer_prefers_the_right_caption(name: str) -> None:
    torch.manual_seed(0)
    assert accuracy(load_scorer(name, WEIGHTS), 40) >= 0.6
