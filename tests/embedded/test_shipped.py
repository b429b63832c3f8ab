"""The shipped weights: stock diffusers draws what the prompt says, and the judge and the scorers recognise it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from nulltta.embedded import PIPELINE, WEIGHTS
from nulltta.embedded.grammar import caption, sample
from nulltta.embedded.judge import Judge, load_judge
from nulltta.embedded.render import render_batch, to_unit
from nulltta.embedded.scorers import load_scorer
from nulltta.embedded.train.judge import accuracy as judge_accuracy
from nulltta.embedded.train.sampling import sample_images
from nulltta.embedded.train.scorers import accuracy as scorer_accuracy
from nulltta.errors import InvalidValue


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def test_the_weights_are_small() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 44e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}


def test_the_judge_reads_fresh_renders(judge: Judge) -> None:
    for held in (False, True):
        for fact, share in judge_accuracy(judge, 200, held=held).items():
            assert share >= 0.98, (fact, held)


def test_the_judge_reports_fact_by_fact(judge: Judge) -> None:
    scene = sample(random.Random(1), kind="different")
    image = to_unit(render_batch([scene], random.Random(2)))
    assert judge.report(image[0], caption(scene)) == dict.fromkeys(("objects", "count", "background", "style"), True)
    wrong = "a robot, noto style" if scene.style == "fluent" else "a robot, fluent style"
    assert judge.facts(image, [wrong]).item() == 0
    with pytest.raises(InvalidValue, match="dragon"):
        judge.facts(image, ["a dragon"])


@pytest.mark.parametrize("name", ["clip", "clip-b"])
def test_a_scorer_prefers_the_right_caption(name: str) -> None:
    assert scorer_accuracy(load_scorer(name), "cpu", 40) >= 0.8


@pytest.mark.parametrize("name", ["clip", "clip-b"])
def test_gradient_reaches_the_pixels_only(name: str) -> None:
    scorer = load_scorer(name)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    score = scorer(images, ["a fox", "two foxes on a blue background"])
    assert score.shape == (2,)
    assert score.abs().max() <= 1
    score.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in scorer.model.parameters())


def test_scores_do_not_depend_on_the_batch() -> None:
    scorer = load_scorer("clip")
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = ["a fox", "a rose", "a panda"]
    alone = [scorer(images[k : k + 1], prompts[k : k + 1]).item() for k in range(3)]
    assert scorer(images, prompts).tolist() == pytest.approx(alone, abs=1e-5)


def test_an_unknown_scorer_is_refused_with_the_known_names() -> None:
    with pytest.raises(InvalidValue, match="must be one of clip, clip-b"):
        load_scorer("clip-z")


def test_stock_diffusers_draws_what_the_judge_confirms(judge: Judge) -> None:
    from diffusers import StableDiffusionPipeline

    pipe: Any = StableDiffusionPipeline.from_pretrained(PIPELINE)
    pipe.set_progress_bar_config(disable=True)
    prompts = [
        "a cat face on a blue background, noto style",
        "a pizza on a pink background, noto style",
        "a rocket on a black background, fluent style",
        "an octopus on a white background, fluent style",
    ]
    images = sample_images(pipe, prompts)
    assert images.shape == (4, 3, 64, 64)
    assert judge.facts(images, prompts).mean() >= 0.75
