"""Composed rewards: their arithmetic, their parts, and z(...)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from nulltta import InvalidValue, RewardError
from nulltta.rewards import load
from nulltta.rewards.closed_form import brightness, colourfulness, sharpness
from nulltta.rewards.compose import Standardised, measured, parts, unmeasured
from nulltta.scoring import score


def _images(batch: int = 4) -> Tensor:
    return torch.rand((batch, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def test_nested_differences_and_standardised_sums_are_the_arithmetic() -> None:
    images = _images()
    reward = load("2*(brightness - 0.5*colourfulness) - z(sharpness, 0.3, 0.1)")
    expected = 2 * (brightness(images) - 0.5 * colourfulness(images)) - (sharpness(images) - 0.3) / 0.1
    torch.testing.assert_close(reward(images, [""] * 4), expected)
    assert reward.name == "2*(brightness - 0.5*colourfulness) - z(sharpness, 0.3, 0.1)"
    torch.testing.assert_close(load(reward.name)(images, [""] * 4), expected)


def test_parts_are_the_innermost_rewards_without_weights() -> None:
    images = _images()
    found = parts(load("2*(brightness - 0.5*colourfulness) - z(sharpness, 0.3, 0.1)"))
    assert list(found) == ["brightness", "colourfulness", "sharpness"]
    torch.testing.assert_close(found["colourfulness"](images, [""] * 4), colourfulness(images))
    torch.testing.assert_close(found["sharpness"](images, [""] * 4), sharpness(images))
    assert list(parts(load("brightness"))) == ["brightness"]


def test_a_sum_says_which_part_gives_no_gradient() -> None:
    reward: Any = load("brightness + z(0.1*jpeg - sharpness, -2, 1) + jpeg-incompressibility")
    assert not reward.differentiable
    assert reward.without_gradient == ("jpeg", "jpeg-incompressibility")
    standardised: Any = load("brightness + z(sharpness)")
    assert standardised.without_gradient == ()


def test_z_is_measured_for_each_prompt_on_its_own_samples() -> None:
    reward = load("z(brightness) + z(colourfulness, 0, 2)")
    assert len(unmeasured(reward)) == 1
    images, prompts = _images(6), ["a", "b", "a", "b", "a", "a"]
    known = measured(reward, lambda each: each(images, prompts), prompts)
    assert unmeasured(known) == []
    assert len(unmeasured(reward)) == 1  # the reward given is left as it was
    values = brightness(images)
    own = values[[0, 2, 4, 5]]
    expected = (values[:1] - own.mean()) / own.std(correction=0) + colourfulness(images[:1]) / 2
    torch.testing.assert_close(known(images[:1], ["a"]), expected)
    with pytest.raises(InvalidValue, match="not measured for 'c'"):
        known(images[:1], ["c"])


def test_z_without_figures_is_an_error_outside_align() -> None:
    with pytest.raises(InvalidValue, match=r"'z\(brightness\)' has no mean and deviation yet"):
        load("z(brightness)")(_images(), [""] * 4)


def test_z_of_what_does_not_vary_is_an_error() -> None:
    def constant(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.ones(len(images))

    with pytest.raises(RewardError, match="the same for all samples of 'a'"):
        measured(Standardised(load(constant)), lambda each: score(each, _images(), ["a"] * 4), ["a"] * 4)


def test_a_reward_that_fails_while_z_is_measured_is_a_reward_error() -> None:
    def broken(images: Tensor, prompts: Sequence[str]) -> Tensor:
        raise ValueError("a cable came loose")

    with pytest.raises(RewardError, match=r"broken.*a cable came loose"):
        measured(Standardised(load(broken)), lambda each: score(each, _images(), ["a"] * 4), ["a"] * 4)
