"""Ablations of Null-TTA: the prompt's embedding is optimised instead, or one null text serves all steps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nulltta import NullTTAConfig, align
from nulltta.algorithm.sampling import null_tta
from nulltta.algorithm.streams import MethodRun
from nulltta.contracts import Embedding, NoiseStep
from nulltta.testing import Gaussian, nearness

from .linear import TARGET

SHORT = NullTTAConfig(
    num_inference_steps=5, inner_steps=(2, 4), guidance_scale=3.0, annealing="auto", learning_rate=0.05
)


def test_a_quadratic_reward_is_maximised_over_the_prompts_embedding() -> None:
    """In one denoising step J is quadratic in c', so that its maximum has a closed form, which the image reveals."""
    config = NullTTAConfig(
        num_inference_steps=1, inner_steps=(400, 400), num_particles=1, guidance_scale=3.0, reward_weight=1.0,
        kl_weight=0.05, prior_variance=0.5, learning_rate=0.03,
    )  # fmt: skip
    result = align(Gaussian(), "red", nearness, config=config, seed=1, method="prompt-embedding")
    step = Gaussian().schedule(1)[0]
    x, c, s, alpha_bar = result.problem.latents[0, 0].flatten(), torch.tensor([1.0, 0.0, 0.0]), 3.0, step.alpha_bar
    # x̂0 = √ᾱ·x + (1−ᾱ)·s·c': the reward is −‖a·c' − b‖², the regularisers −q·‖c' − c‖².
    a, b = (1 - alpha_bar) * s, TARGET - alpha_bar**0.5 * x
    divergence = step.consistency * s**2 * (1 - alpha_bar) * alpha_bar
    q = 0.05 * (divergence + 1 / (2 * 0.5))
    optimum = (a * b + q * c) / (a**2 + q)
    image = alpha_bar**0.5 * x + (1 - alpha_bar) * s * optimum
    torch.testing.assert_close(result.images.flatten(), image, rtol=0, atol=1e-3)
    torch.testing.assert_close(result.trace[0].kl[0], divergence * (optimum - c).square().sum(), rtol=1e-2, atol=0)


def test_the_prompts_embedding_moves_and_the_null_text_stays() -> None:
    class Recording(Gaussian):
        def __init__(self) -> None:
            super().__init__()
            self.differentiated: list[Tensor] = []
            self.other: list[Tensor] = []

        def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
            kept = self.differentiated if embedding["mean"].requires_grad else self.other
            kept.extend(embedding["mean"].detach().unbind(0))
            return super().predict(x, step, embedding)

    model = Recording()
    result = align(model, "red", nearness, config=SHORT, method="prompt-embedding", negative_prompt="green")
    null, cond = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    assert torch.equal(result.problem.null["mean"][0], null)
    assert torch.equal(result.problem.cond["mean"][0], cond)
    assert result.null_text == []
    assert torch.equal(model.differentiated[0], cond)
    assert not any(torch.equal(mean, null) for mean in model.differentiated)
    guided_predictions = SHORT.num_particles * SHORT.num_inference_steps  # each candidate is scored under φ
    assert sum(torch.equal(mean, null) for mean in model.other) == guided_predictions
    assert float(result.rewards) > float(result.baseline_rewards)


def test_a_shared_null_text_is_the_mean_of_those_learnt_and_stays_frozen() -> None:
    learnt, shared = (
        align(Gaussian(), ["red", "green"], nearness, config=SHORT, method=method)
        for method in ("null-tta", "shared-null")
    )
    for own, one in zip(learnt.null_text, shared.null_text, strict=True):
        assert len(one.values) == len(one.timesteps) == 5
        assert not torch.equal(own.values[0]["mean"], own.values[-1]["mean"])
        for value in one.values:
            torch.testing.assert_close(value["mean"], own.mean()["mean"])
    assert len(shared.trace) == 10
    assert all(len(step.inner_rewards) > 0 for step in shared.trace[:5])
    assert all(len(step.inner_rewards) == 0 and bool((step.kl > 0).all()) for step in shared.trace[5:])
    assert bool((shared.rewards > shared.baseline_rewards).all())


def test_a_shared_null_text_averages_only_the_steps_that_were_optimised() -> None:
    config = replace(SHORT, optimise_between=(0.6, 1.0))
    learnt, shared = (
        align(Gaussian(), "red", nearness, config=config, method=method) for method in ("null-tta", "shared-null")
    )
    optimised = torch.stack([value["mean"] for value in learnt.null_text[0].values[3:]]).mean(0)
    assert torch.equal(learnt.null_text[0].values[2]["mean"], torch.zeros(3))  # φ of the closed-form model
    torch.testing.assert_close(shared.null_text[0].values[0]["mean"], optimised)


def test_a_budget_is_for_what_a_shared_null_text_is_learnt_with() -> None:
    config = replace(SHORT, budget=34)  # one inner step, at the last denoising step
    learnt, shared = (
        align(Gaussian(), "red", nearness, config=config, method=method) for method in ("null-tta", "shared-null")
    )
    torch.testing.assert_close(shared.null_text[0].values[0]["mean"], learnt.null_text[0].values[-1]["mean"])


def test_alignment_continues_from_a_null_text_given_at_the_start() -> None:
    problem = align(Gaussian(), "red", nearness, config=SHORT, method="plain").problem
    start = {"mean": torch.tensor([[0.3, -0.1, 0.2]])}
    frozen = replace(problem, config=replace(SHORT, inner_steps=(0, 0), num_particles=1), start=lambda _: start)
    run = MethodRun(null_tta(frozen))
    outcome, trace = run.finish(), run.trace
    assert all(torch.equal(null["mean"], start["mean"]) for null in outcome.nulls)
    assert all(float(step.kl) > 0 for step in trace)
