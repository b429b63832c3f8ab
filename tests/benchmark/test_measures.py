"""Measures of images for which the answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from nulltta import rewards
from nulltta.benchmark.measures import Measures
from nulltta.evaluation.measures import diversity


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
    assert list(found) == ["clip", "clip-b", "facts", "high-frequency"]
    assert found["clip-b"] != found["clip"]
    assert 0 <= found["facts"][0] <= 1
    assert math.isnan(found["facts"][1])
    packed = measures.packed_features(images)
    assert diversity(dict(enumerate(text for text in packed if text))) == pytest.approx(0, abs=1e-4)
