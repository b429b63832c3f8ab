"""Measures of images for which the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nulltta import rewards
from nulltta.benchmark.measures import Measures, diversity, high_frequency, pack, unpack


def test_high_frequency_is_the_deviation_of_what_is_finer_than_half_nyquist() -> None:
    n = torch.arange(16)
    fine, coarse = ((2 * math.pi * k / 16 * n).cos().expand(3, 16, 16) for k in (6, 2))
    images = torch.stack([0.5 + 0.2 * fine, 0.5 + 0.2 * coarse, 0.5 + 0.2 * fine.mT + 0.1 * coarse])
    assert high_frequency(images).tolist() == pytest.approx([0.2 / 2**0.5, 0.0, 0.2 / 2**0.5], abs=1e-6)


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    x, y = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert diversity({0: pack(x), 1: pack(x)}) == 0
    assert diversity({0: pack(x), 1: pack(y)}) == 1
    assert diversity({0: pack(x), 1: pack(y), 2: pack(-x)}) == pytest.approx((1 + 2 + 1) / 3)
    assert math.isnan(diversity({0: pack(x)}))
    assert unpack(pack(np.array([0.25, -3.0]))).tolist() == [0.25, -3.0]


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
