"""`kl_target` bounds the exact divergence of every denoising step, for each prompt on its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from nulltta import InvalidValue, NullTTAConfig, align
from nulltta.algorithm.budget import evaluations
from nulltta.algorithm.trust_region import AIM, within
from nulltta.testing import Gaussian, nearness

from .objectives import MOVED, gaussian_objective

TARGET = 0.01
SHORT = NullTTAConfig(
    num_inference_steps=5, inner_steps=(3, 6), guidance_scale=3.0, annealing="auto", learning_rate=0.1, kl_target=TARGET
)


def test_the_divergence_is_that_of_the_gaussians_whatever_the_conventions() -> None:
    paper, exact = gaussian_objective(), gaussian_objective(conventions="exact")
    eps = paper.model.predict(paper.x, paper.step, MOVED)
    torch.testing.assert_close(paper.divergence(eps), exact.kl(eps))


def test_a_step_without_noise_counts_as_one_with_ddpms_larger_variance() -> None:
    objective = gaussian_objective()
    still = replace(objective, step=replace(objective.step, eta=0.0))
    eps = still.model.predict(still.x, still.step, MOVED)
    s, now, then = still.config.guidance_scale, still.step.alpha_bar, still.step.alpha_bar_previous
    # x̂0 = √ᾱ·x + (1−ᾱ)·m and the guided m moves by (1−s)·φ'. Under q(x_{t−1} | x_t, x0) with variance β the mean is
    # √ᾱ_{t−1}·β/(1−ᾱ)·x̂0 + ..., as in DDPM's equation 7.
    beta = 1 - now / then
    shift = then**0.5 * beta / (1 - now) * (1 - now) * (1 - s) * MOVED["mean"]
    expected = shift.square().sum(1) / (2 * beta)
    torch.testing.assert_close(still.divergence(eps), expected)


def test_a_projection_ends_at_the_aim_where_the_model_is_linear_and_others_stay() -> None:
    objective = gaussian_objective()
    eps = objective.model.predict(objective.x, objective.step, MOVED)
    before = objective.divergence(eps)
    target = float(before.mean())
    null, moved, spent = within(objective, MOVED, eps, target)
    kept = int(before.argmin())
    assert torch.equal(null["mean"][kept], MOVED["mean"][kept])
    assert spent[kept] == before[kept]
    assert float(spent[1 - kept]) == pytest.approx(AIM * target, rel=1e-4)
    torch.testing.assert_close(moved, objective.model.predict(objective.x, objective.step, null))
    torch.testing.assert_close(spent, objective.divergence(moved))
    torch.testing.assert_close(  # on the line to φ = 0
        null["mean"][1 - kept] / null["mean"][1 - kept].norm(), MOVED["mean"][1 - kept] / MOVED["mean"][1 - kept].norm()
    )


@pytest.mark.parametrize("gradient", ["autograd", "zeroth-order"])
def test_every_step_is_held_and_the_bound_is_used(gradient: str) -> None:
    config = replace(SHORT, gradient=gradient, zeroth_order_directions="white")
    spent = torch.stack([step.kl for step in align(Gaussian(), ["red", "green"], nearness, config=config).trace])
    free = align(Gaussian(), ["red", "green"], nearness, config=replace(config, kl_target=None, conventions="exact"))
    assert bool((spent <= TARGET).all())
    assert bool((spent[:-1] >= 0.9 * TARGET).any())
    assert bool((torch.stack([step.kl for step in free.trace]) > TARGET).any())


def test_what_was_carried_over_is_held_too_after_the_last_inner_step() -> None:
    trace = align(Gaussian(), "red", nearness, config=replace(SHORT, optimise_between=(0.0, 0.5))).trace
    assert [len(step.inner_rewards) > 0 for step in trace] == [True, True, False, False, False]
    assert all(0 < float(step.kl) <= TARGET for step in trace)


def test_a_deterministic_sampler_is_held_too() -> None:
    trace = align(Gaussian(), "red", nearness, config=replace(SHORT, eta=0.0)).trace
    assert all(0 < float(step.kl) <= TARGET for step in trace)


def test_a_target_that_is_never_reached_changes_nothing(model: Any, config: NullTTAConfig) -> None:
    free = align(model, "a cat", "colourfulness", config=config)
    held = align(model, "a cat", "colourfulness", config=replace(config, kl_target=1e9))
    assert torch.equal(free.images, held.images)


def test_a_prompts_result_does_not_depend_on_its_batch(model: Any, config: NullTTAConfig) -> None:
    prompts, seeds, held = ["a cat", "a red dog", "the sun"], [3, 1, 4], replace(config, kl_target=1e-3)
    batch = align(model, prompts, "colourfulness", config=held, seed=seeds)
    assert bool((torch.stack([step.kl for step in batch.trace]) <= 1e-3).all())
    alone = align(model, prompts[1], "colourfulness", config=held, seed=1)
    torch.testing.assert_close(batch.images[1], alone.images[0], rtol=0, atol=1e-4)


def test_the_cost_stays_within_what_was_foretold() -> None:
    model = Gaussian()
    align(model, "red", nearness, config=SHORT)
    inner, others = evaluations(SHORT)
    assert model.with_gradient == inner
    assert evaluations(replace(SHORT, kl_target=None))[1] < model.without_gradient <= others


@pytest.mark.parametrize("method", ["best-of-n", "dps", "das", "dno", "shared-null"])
def test_a_method_that_could_not_keep_it_refuses_it(method: str) -> None:
    with pytest.raises(InvalidValue, match="kl_target bounds"):
        align(Gaussian(), "red", nearness, config=SHORT, method=method)
