"""The doctor's estimates add up and agree with the run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.algorithm.budget import evaluations
from nulltta.runs.doctor import describe, estimate, weights
from nulltta.testing import Gaussian, nearness

CONFIG = NullTTAConfig(num_inference_steps=4, inner_steps=(1, 3), guidance_scale=3.0, annealing="auto")


def test_an_estimate_is_the_sum_of_its_parts_and_grows_with_the_run() -> None:
    reward = rewards.load(nearness)
    found = estimate(Gaussian(), reward, CONFIG, prompt="red")
    assert found.seconds == pytest.approx(found.inner + found.candidates + found.references)
    assert min(found.inner, found.candidates, found.references, found.activations) > 0
    assert found.fits
    without_inner = estimate(Gaussian(), reward, replace(CONFIG, inner_steps=(0, 0)), prompt="red")
    assert without_inner.inner == without_inner.references == 0


def test_estimating_takes_few_evaluations() -> None:
    model = Gaussian()
    estimate(model, rewards.load(nearness), replace(CONFIG, num_inference_steps=100), prompt="red")
    assert model.with_gradient + model.without_gradient < sum(evaluations(replace(CONFIG, num_inference_steps=100))) / 4


def test_weights_are_those_of_the_networks_on_the_disk() -> None:
    model, reward = nulltta.load_model("embedded"), rewards.load("clip")
    found = estimate(model, reward, NullTTAConfig.embedded())
    assert 60e6 < weights(model, reward) == found.weights < 90e6  # 39 MB in half precision, computed in float32
    assert found.activations > 1e6


def test_a_reward_without_gradient_is_estimated_by_its_evaluations() -> None:
    found = estimate(nulltta.load_model("embedded"), rewards.load("jpeg"), NullTTAConfig.embedded())
    assert found.inner > found.references > 0


def test_the_machine_is_described() -> None:
    about = describe(torch.device("cpu"))
    assert 0 < about.free <= about.total
    assert "float32" in about.dtypes
