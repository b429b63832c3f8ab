"""Measures of images for which the answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from nulltta import rewards
from nulltta.benchmark.measures import Measures, NearestRender
from nulltta.embedded.scenes.grammar import CATEGORIES
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.measures import unpack


def test_targets_their_parts_and_others_are_measured() -> None:
    target = "0.5*z(brightness, 0.4, 0.1) + 0.5*colourfulness"
    measures = Measures("another", [target], ["sharpness"], torch.device("cpu"))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = measures(images, ["a", "b"])
    assert list(found) == ["brightness", "colourfulness", target, "sharpness", "high-frequency"]
    for name in ("brightness", "sharpness", target):
        assert found[name] == pytest.approx(rewards.load(name)(images, ["a", "b"]).tolist())
    assert measures.packed_features(images) == [None, None]


def test_the_embedded_model_has_a_held_out_scorer_a_judge_and_features() -> None:
    measures = Measures("embedded", ["clip"], [], torch.device("cpu"))
    prompts = ["a fox on a blue background, noto style", "a photograph of Paris"]
    images = torch.full((2, 3, 64, 64), 0.3)
    found = measures(images, prompts)
    assert list(found) == ["clip", "clip-b", "facts", "high-frequency", "nearest render", "all right"]
    assert found["clip-b"] != found["clip"]
    assert 0 <= found["facts"][0] <= 1
    assert math.isnan(found["facts"][1])
    assert found["all right"][0] == float(found["facts"][0] == 1)
    assert math.isnan(found["all right"][1])
    assert math.isnan(found["nearest render"][1])
    first, second = (unpack(text) for text in measures.packed_features(images) if text)
    assert first @ second == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(
    ("world", "prompt", "other"),
    [
        ("embedded", "a fox on a blue background, noto style", "a cat face on a red background, noto style"),
        ("scenes", "two red stars", "a blue heart"),
    ],
)
def test_a_true_render_is_nearer_to_its_own_prompts_renders(world: str, prompt: str, other: str) -> None:
    renders = WORLDS[world].renders
    measure, image = NearestRender(renders), renders(prompt, 1)
    own, wrong = measure(image.repeat(2, 1, 1, 1), [prompt, other]).tolist()
    assert own > 60  # it is the first of them
    assert own > wrong + 20
    assert torch.equal(renders(prompt, 3), renders(prompt, 3))


def test_prompts_are_of_the_kinds_of_their_world() -> None:
    kinds = {name: {world.kind(prompt) for prompt in world.tuning_prompts(24)} for name, world in WORLDS.items()}
    emoji, scenes = {"one", "same", "different"}, set(CATEGORIES)
    assert kinds == {"embedded": emoji, "embedded-turbo": emoji, "scenes": scenes, "scenes-turbo": scenes}
