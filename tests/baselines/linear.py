"""Sampling from `nulltta.testing.Gaussian` in closed form: a step is x' = a·x + b·μ + σ·z, with μ the guided mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nulltta import NullTTAConfig
from nulltta.algorithm.problem import Problem
from nulltta.alignment import make_problem
from nulltta.testing import Gaussian

TARGET = torch.tensor([0.2, 0.4, 0.6])  # of nulltta.testing.nearness, −‖x − target‖²
WEIGHTS = torch.tensor([0.5, -1.0, 0.25])


def slope(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return the linear reward w·x."""
    return images.flatten(1) @ WEIGHTS


@dataclass(frozen=True)
class Linear:
    """A step x' = a·x + b·μ + σ·z, with the clean estimate x̂0 = √ᾱ·x + (1−ᾱ)·μ."""

    a: float
    b: float
    std: float
    alpha_bar: float

    def predict_x0(self, x: Tensor, mu: Tensor) -> Tensor:
        return self.alpha_bar**0.5 * x + (1 - self.alpha_bar) * mu

    def mean(self, x: Tensor, mu: Tensor) -> Tensor:
        return self.a * x + self.b * mu

    def reward(self, x: Tensor, mu: Tensor) -> Tensor:
        """Return −‖x̂0 − target‖²."""
        return -(self.predict_x0(x, mu) - TARGET).square().sum(-1)

    def reward_gradient(self, x: Tensor, mu: Tensor) -> Tensor:
        return -2 * self.alpha_bar**0.5 * (self.predict_x0(x, mu) - TARGET)


def sampler(steps: int) -> list[Linear]:
    """Return the steps at η = 1."""
    found = []
    for step in Gaussian().schedule(steps):
        now, then = step.alpha_bar, step.alpha_bar_previous
        std = math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        towards = math.sqrt(max(0.0, 1 - then - std**2))
        a = math.sqrt(then * now) + towards * math.sqrt(1 - now)
        b = math.sqrt(then) * (1 - now) - towards * math.sqrt((1 - now) * now)
        found.append(Linear(a, b, std, now))
    return found


def marginal(steps: int, mu: Tensor) -> tuple[Tensor, float]:
    """Return the mean (3,) and variance of plain sampling's x_0."""
    mean, variance = torch.zeros(3), 1.0
    for step in sampler(steps):
        mean, variance = step.a * mean + step.b * mu, step.a**2 * variance + step.std**2
    return mean, variance


def tilted(steps: int, mu: Tensor, weight: float) -> tuple[Tensor, float]:
    """Return the mean (3,) and variance of the Gaussian p(x_0)·exp(−weight·‖x_0 − target‖²)/Z."""
    mean, variance = marginal(steps, mu)
    precision = 1 / variance + 2 * weight
    return (mean / variance + 2 * weight * TARGET) / precision, 1 / precision


def problem(
    reward: object, steps: int, prompts: Sequence[str] = ("red",), seed: int = 0, scale: float = 2.0
) -> Problem:
    config = NullTTAConfig(num_inference_steps=steps, guidance_scale=scale, num_particles=1)
    return make_problem(Gaussian(), list(prompts), reward, config, seed)  # type: ignore[arg-type]


def guided_means(p: Problem) -> Tensor:
    """Return μ = φ + s(c − φ), (B, 3)."""
    null, cond = p.null["mean"], p.cond["mean"]
    return null + p.config.guidance_scale * (cond - null)


def noises(p: Problem, count: int) -> list[Tensor]:
    """Return the noise of the first prompt's particles, (N, 3) per step."""
    like = p.latents[:, 0]
    return [p.noise(i, step, like, count)[0].flatten(1) for i, step in enumerate(p.schedule())]
