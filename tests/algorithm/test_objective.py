"""The objective: guidance, the consistency term, the prior and their weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nulltta.testing import Gaussian

from .objectives import MOVED, gaussian_objective


def test_guidance_extrapolates_from_null_to_condition() -> None:
    null, cond = torch.tensor([1.0]), torch.tensor([3.0])
    assert [Gaussian().guide(null, cond, s).item() for s in (0.0, 1.0, 7.5)] == [1.0, 3.0, 16.0]


@pytest.mark.parametrize(("conventions", "factor"), [("paper", 4.0), ("release", 9.0)])
def test_consistency_is_the_guided_difference_times_its_coefficient(conventions: str, factor: float) -> None:
    objective = gaussian_objective(conventions=conventions)
    moved = objective.model.predict(objective.x, objective.step, MOVED)
    difference = (moved - objective.eps_null).flatten(1).square().sum(1)
    torch.testing.assert_close(objective(MOVED).kl, objective.step.consistency * factor * difference)


def test_paper_consistency_is_the_norm_of_the_guided_difference() -> None:
    objective = gaussian_objective()
    s, model = objective.config.guidance_scale, objective.model
    moved = objective.model.predict(objective.x, objective.step, MOVED)
    difference = model.guide(moved, objective.eps_cond, s) - model.guide(objective.eps_null, objective.eps_cond, s)
    expected = objective.step.consistency * difference.flatten(1).square().sum(1)
    torch.testing.assert_close(objective(MOVED).kl, expected)


def test_exact_consistency_is_the_gaussians_divergence() -> None:
    objective = gaussian_objective(conventions="exact")
    s, model, step = objective.config.guidance_scale, objective.model, objective.step
    eps = model.predict(objective.x, step, MOVED)
    mean, std = model.step_distribution(objective.x, model.guide(eps, objective.eps_cond, s), step)
    reference, _ = model.step_distribution(objective.x, model.guide(objective.eps_null, objective.eps_cond, s), step)
    p, q = (torch.distributions.Normal(m, std) for m in (mean, reference))
    expected = torch.distributions.kl_divergence(p, q).flatten(1).sum(1)
    torch.testing.assert_close(objective(MOVED).kl, expected)


def test_exact_consistency_of_a_deterministic_step_is_zero() -> None:
    objective = gaussian_objective(conventions="exact")
    deterministic = replace(objective, step=replace(objective.step, eta=0.0))
    assert deterministic(MOVED).kl.tolist() == [0.0, 0.0]


def test_the_value_is_the_reward_minus_consistency_minus_prior() -> None:
    objective = gaussian_objective(reward_weight=5.0, kl_weight=0.3, prior_variance=0.02)
    terms = objective(MOVED)
    prior = MOVED["mean"].square().sum(1) / (2 * 0.02)
    torch.testing.assert_close(terms.value, 5.0 * terms.reward - 0.7 * 0.3 * (terms.kl + prior))


@pytest.mark.parametrize("weights", [(0.3, 0.0), (0.0, 0.3), (0.3, 0.7)])
def test_each_regulariser_has_its_own_weight(weights: tuple[float, float]) -> None:
    kl_weight, prior_weight = weights
    terms = gaussian_objective(
        reward_weight=5.0, kl_weight=kl_weight, prior_weight=prior_weight, prior_variance=0.02
    )(MOVED)  # fmt: skip
    prior = MOVED["mean"].square().sum(1) / (2 * 0.02)
    expected = 5.0 * terms.reward - 0.7 * (kl_weight * terms.kl + prior_weight * prior)
    torch.testing.assert_close(terms.value, expected)


def test_both_regularisers_vanish_at_the_encoded_null() -> None:
    terms = gaussian_objective(reward_weight=2.0)(Gaussian().encode(["red"] * 2, [""] * 2)[1])
    assert terms.kl.tolist() == [0.0, 0.0]
    torch.testing.assert_close(terms.value, 2.0 * terms.reward)
