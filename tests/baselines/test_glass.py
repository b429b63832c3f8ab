"""Transitions sampled by an ODE: on data ~ N(m, I), whose transitions are known Gaussians, and on a flow model."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nulltta.algorithm.streams import MethodRun
from nulltta.baselines import FKSteering
from nulltta.baselines.glass import transition
from nulltta.baselines.particles import move, predict
from nulltta.contracts import NoiseStep
from nulltta.errors import InvalidValue
from nulltta.models.steps import ObservedStep, StepwiseModel
from nulltta.testing import Gaussian, nearness

from .linear import guided_means, problem

N = 20_000


def test_one_step_is_the_samplers_own() -> None:
    p = problem(nearness, 3, ["red", "green"])
    step, x = p.schedule()[1], torch.randn(2, 4, 3, 1, 1)
    eps, noise = predict(p, x, step), torch.randn_like(x)
    mean, std = move(p, x, eps, step)
    torch.testing.assert_close(transition(p, x, eps, [step], noise), mean + std * noise)


@pytest.mark.parametrize("count", [1, 100])
def test_many_steps_are_the_exact_transition(count: int) -> None:
    """Given x_t, x_s is N(√ᾱ_s·m + ρ(x_t − √ᾱ_t·m), 1 − ρ²) with ρ² = ᾱ_t/ᾱ_s; one step falls short of the variance."""
    p = problem(nearness, 2 * count)
    steps, m = p.schedule()[:count], guided_means(p)[0].view(3, 1, 1)
    now, then = steps[0].alpha_bar, steps[-1].alpha_bar_previous
    x = torch.full((1, N, 3, 1, 1), 0.7)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    reached = transition(p, x, predict(p, x, steps[0]), steps, noise)[0]
    rho = math.sqrt(now / then)
    mean = math.sqrt(then) * m + rho * (x[0, 0] - math.sqrt(now) * m)
    torch.testing.assert_close(reached.mean(0), mean, rtol=0, atol=0.03)
    variance = reached.var(0).mean().item()
    if count == 1:
        assert variance < 0.6 * (1 - rho**2)
    else:
        assert variance == pytest.approx(1 - rho**2, rel=0.03)


class StraightFlow(StepwiseModel, Gaussian):
    """The same data with x = (1 − σ)·x0 + σ·ε, whose velocity is ε − x0."""

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        sigmas = [1 - 0.9 * i / num_inference_steps for i in range(num_inference_steps)] + [0.0]
        return [_flow_step(now, then) for now, then in pairwise(sigmas)]

    def predict(self, x: Tensor, step: NoiseStep, embedding: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        assert isinstance(step, ObservedStep)
        variance = step.signal**2 + step.noise**2
        centred = x - step.signal * embedding["mean"][..., None, None]
        return (step.noise - step.signal) / variance * centred - embedding["mean"][..., None, None]


def _flow_step(now: float, then: float) -> ObservedStep:
    shares = [(1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2) for sigma in (now, then)]
    levels = {"signal": 1 - now, "noise": now, "signal_next": 1 - then, "noise_next": then}
    return ObservedStep(now, shares[0], shares[1], 0.0, kind="flow", **levels)


def test_a_flow_has_the_same_transitions() -> None:
    """x_s = α_s·x0 + σ_s·ε of a flow, divided by √(α_s² + σ_s²), is the latent of the variance-preserving path."""
    p = replace(problem(nearness, 200), model=StraightFlow())
    steps, m = p.schedule()[40:140], guided_means(p)[0].view(3, 1, 1)
    first, last = steps[0], steps[-1]
    x = torch.full((1, N, 3, 1, 1), 0.4)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    eps = predict(p, x, first)
    one = transition(p, x, eps, [first], noise)
    mean, std = move(p, x, eps, first)
    torch.testing.assert_close(one, mean + std * noise)
    reached = transition(p, x, eps, steps, noise)[0] / last.scale_next
    rho = math.sqrt(first.alpha_bar / last.alpha_bar_previous)
    expected = math.sqrt(last.alpha_bar_previous) * m + rho * (x[0, 0] / first.scale - math.sqrt(first.alpha_bar) * m)
    torch.testing.assert_close(reached.mean(0), expected, rtol=0, atol=0.03)
    assert reached.var(0).mean().item() == pytest.approx(1 - rho**2, rel=0.03)


def test_fk_steering_takes_transitions_of_several_steps() -> None:
    p = problem(nearness, 6)
    steered = MethodRun(FKSteering(particles=64, reward_weight=2.0, transition_steps=3)(p))
    steps = list(steered)
    assert [step.index for step in steps] == list(range(6))
    assert [step.index for step in steps if step.candidate_rewards.numel()] == [2, 5]
    unsteered = MethodRun(FKSteering(particles=1, transition_steps=3)(p)).finish()
    assert steered.outcome.rewards.max() > unsteered.rewards.max()


def test_levels_that_do_not_fall_are_refused() -> None:
    class Idle(Gaussian):
        def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
            first, *rest = super().schedule(num_inference_steps)
            return [replace(first, alpha_bar_previous=first.alpha_bar), *rest]

    p = replace(problem(nearness, 6), model=Idle())
    with pytest.raises(InvalidValue, match="transition_steps above 1 needs noise levels that fall"):
        MethodRun(FKSteering(transition_steps=3)(p)).finish()


@pytest.mark.parametrize(
    ("steps", "eta", "line"), [(4, 1.0, "transition_steps must divide the number of denoising steps, 4"),
                               (6, 0.0, "transition_steps above 1 belongs to the ancestral sampler: set eta to 1")]
)  # fmt: skip
def test_transitions_that_the_schedule_does_not_have_are_refused(steps: int, eta: float, line: str) -> None:
    p = problem(nearness, steps)
    with pytest.raises(InvalidValue, match=line):
        MethodRun(FKSteering(transition_steps=3)(replace(p, config=replace(p.config, eta=eta)))).finish()
