"""Best-of-N."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import plain
from nulltta.algorithm.streams import MethodRun
from nulltta.baselines import BestOfN
from nulltta.baselines.particles import initial_latents
from nulltta.contracts import NoiseStep
from nulltta.testing import nearness

from .linear import problem

PROMPTS = ["red", "green"]


def test_it_is_the_best_of_plain_samples_with_separate_latents_and_noise() -> None:
    p = problem(nearness, 5, PROMPTS, seed=4)
    run = MethodRun(BestOfN(samples=4)(p))
    outcome, trace = run.finish(), run.trace
    samples = [MethodRun(plain(_nth(p, n))).finish() for n in range(4)]
    rewards = torch.cat([sample.rewards for sample in samples], dim=1)
    torch.testing.assert_close(outcome.rewards, rewards)
    torch.testing.assert_close(outcome.candidates, torch.cat([sample.candidates for sample in samples], dim=1))
    assert torch.equal(outcome.selected, rewards.argmax(1))
    assert outcome.selected.tolist() != [0, 0]
    assert torch.equal(outcome.initial_latents, initial_latents(p, 4)[torch.arange(2), outcome.selected])
    assert len(trace) == 5


def test_more_samples_include_those_of_fewer() -> None:
    p = problem(nearness, 5, PROMPTS)
    few, many = (MethodRun(BestOfN(samples=n)(p)).finish() for n in (2, 6))
    torch.testing.assert_close(many.candidates[:, :2], few.candidates)


def _nth(p: Problem, n: int) -> Problem:
    """Return the problem of one candidate with the n-th latent and the n-th candidate's noise."""

    class Nth(Problem):
        def noise(self, index: int, step: NoiseStep, like: Tensor, particles: int) -> Tensor:
            return Problem.noise(self, index, step, like, n + 1)[:, n:]

    latents = initial_latents(p, n + 1)[:, n:]
    return replace(Nth(**{field.name: getattr(p, field.name) for field in fields(p)}), latents=latents)
