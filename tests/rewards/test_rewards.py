from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nulltta import NullTTAError
from nulltta.rewards import load
from nulltta.rewards.closed_form import brightness, colourfulness
from nulltta.rewards.expression import parse


def _images(batch: int = 3, size: int = 16) -> Tensor:
    return torch.rand((batch, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_brightness_is_the_mean_pixel() -> None:
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.full((3, 4, 4), 0.25)])
    assert brightness(images).tolist() == [0.0, 1.0, 0.25]


def test_colourfulness_is_hasler_and_suesstrunks() -> None:
    import numpy as np

    images = _images()
    for image, ours in zip(images.numpy() * 255, colourfulness(images), strict=True):
        rg = image[0] - image[1]
        yb = 0.5 * (image[0] + image[1]) - image[2]
        expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
        assert ours.item() * 255 == pytest.approx(expected)


def test_colourfulness_of_grey_is_nothing_with_a_finite_gradient() -> None:
    grey = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    value = colourfulness(grey)
    (gradient,) = torch.autograd.grad(value.sum(), grey)
    assert value.item() < 1e-6
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("function", [brightness, colourfulness])
def test_gradients_match_finite_differences(function: Any) -> None:
    assert torch.autograd.gradcheck(function, (_images(2, 4).requires_grad_(),))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("clip", [(1.0, "clip")]),
        ("clip-b", [(1.0, "clip-b")]),
        ("0.7*clip + 0.3*colourfulness", [(0.7, "clip"), (0.3, "colourfulness")]),
        ("clip-0.5*brightness", [(1.0, "clip"), (-0.5, "brightness")]),
        ("-brightness", [(-1.0, "brightness")]),
        ("  2*clip  -  clip-b ", [(2.0, "clip"), (-1.0, "clip-b")]),
        ("1e-2*clip+.5*hpsv2.1", [(0.01, "clip"), (0.5, "hpsv2.1")]),
    ],
)
def test_expressions_are_parsed(text: str, terms: list[tuple[float, str]]) -> None:
    assert parse(text) == terms


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "its end"),
        ("0.5*", "its end"),
        ("clip +", "its end"),
        ("0.5 clip", "'clip'"),
        ("clip clip", "'clip'"),
        ("clip * 2", r"'\* 2'"),
        ("__import__('os')", r"'__import__\('os'\)'"),
        ("clip; rm", "'; rm'"),
        ("+ clip", r"'\+ clip'"),
    ],
)
def test_malformed_expressions_point_at_the_place(text: str, place: str) -> None:
    with pytest.raises(NullTTAError, match=f"malformed at {place}"):
        parse(text)


def test_a_weighted_sum_is_the_sum() -> None:
    images = _images()
    total = load("0.7*brightness - 0.3*colourfulness")
    torch.testing.assert_close(total(images, []), 0.7 * brightness(images) - 0.3 * colourfulness(images))
    assert total.name == "0.7*brightness - 0.3*colourfulness"
    assert total.differentiable


def test_a_callable_is_a_reward_and_a_reward_stays_itself() -> None:
    reward = load(lambda images, prompts: images.mean((1, 2, 3)))
    assert reward.differentiable
    assert load(reward) is reward


@pytest.mark.parametrize("name", ["clop", "2*brightness + zorp", "Clip"])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(NullTTAError, match=r"unknown reward .* known are clip, clip-b, colourfulness, brightness"):
        load(name)
