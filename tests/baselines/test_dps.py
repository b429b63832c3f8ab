"""DPS, against its analytic gradient."""

from __future__ import annotations

import pytest
import torch

from nulltta.algorithm.sampling import plain
from nulltta.algorithm.streams import MethodRun
from nulltta.baselines import DPS
from nulltta.testing import nearness

from .linear import guided_means, noises, problem, sampler


def test_without_scale_it_is_plain_sampling() -> None:
    p = problem(nearness, 5, ["red", "green"], seed=3)
    guided, ordinary = (MethodRun(method(p)).finish() for method in (DPS(scale=0.0), plain))
    torch.testing.assert_close(guided.candidates, ordinary.candidates)
    torch.testing.assert_close(guided.rewards, ordinary.rewards)


@pytest.mark.parametrize("steps", [1, 3])
def test_each_step_is_shifted_by_the_scaled_analytic_gradient(steps: int) -> None:
    p = problem(nearness, steps, seed=3)
    run = MethodRun(DPS(scale=0.3)(p))
    outcome, trace = run.finish(), run.trace
    mu, z = guided_means(p)[0], noises(p, 1)
    x = p.latents[0, 0].flatten()
    for i, step in enumerate(sampler(steps)):
        torch.testing.assert_close(trace[i].inner_rewards[0, 0], step.reward(x, mu))
        x = step.mean(x, mu) + 0.3 * step.reward_gradient(x, mu) + step.std * z[i][0]
    torch.testing.assert_close(outcome.candidates[0, 0].flatten(), x)


def test_guidance_raises_the_reward() -> None:
    p = problem(nearness, 5, ["red", "green"])
    guided, ordinary = (MethodRun(method(p)).finish() for method in (DPS(scale=0.3), plain))
    assert bool((guided.rewards > ordinary.rewards).all())
