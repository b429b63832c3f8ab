"""Reward-based noise optimisation: of the sampler's noises only the initial latent is optimised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.baselines.noise_ascent import NoiseAscent, own_noise
from nulltta.config import number, whole
from nulltta.contracts import Stream


@dataclass(frozen=True, kw_only=True)
class ReNO:
    """Maximise λ·r(D(x_0(x_T))) + w·K(x_T) over x_T, K(x) = (d−1)·log‖x‖ − ‖x‖²/2 (ReNO, arXiv 2406.04312).

    K is the log-density of the norm of d Gaussian numbers. The ascent is by gradient with Nesterov momentum, with the
    gradient of each prompt clipped; the step noises stay plain sampling's. It was published for models of one step, and
    its release samples models of several steps with η = 0: x_T then decides the image. Here the gradient goes through
    all T steps, with the configuration's η.

    Cost per prompt: that of `NoiseAscent`.

    Attributes:
        iterations: n, how often the latent is moved.
        reward_weight: λ. Published, summed: ImageReward 1, HPSv2 5.
        learning_rate: of the ascent; a clipped step is clip·learning_rate long, before momentum.
        momentum: of the ascent.
        clip: the largest norm of a prompt's gradient.
        norm_weight: w, the weight of K.
    """

    iterations: int = 50
    reward_weight: float = 1.0
    learning_rate: float = 5.0
    momentum: float = 0.9
    clip: float = 0.1
    norm_weight: float = 0.01

    def __post_init__(self) -> None:
        whole(self, "iterations", at_least=0)
        for name in ("reward_weight", "learning_rate", "momentum", "clip", "norm_weight"):
            number(self, name)

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        initial, *noises = own_noise(problem)
        x = initial[:, None].clone()  # (B, 1, C, h, w)
        optimiser = torch.optim.SGD(
            [x], lr=self.learning_rate, momentum=self.momentum, nesterov=self.momentum > 0, maximize=True
        )
        ascent = NoiseAscent(
            x, noises, optimiser, self.clip, self.reward_weight,
            regulariser=lambda x, _: self.norm_weight * log_norm_density(x),
        )  # fmt: skip
        return (yield from ascent.run(problem, self.iterations))


def log_norm_density(x: Tensor) -> Tensor:
    """Return K(x) of each prompt up to a constant: (B, ...) -> (B,)."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return (x[0].numel() - 1) * norm.log() - norm.square() / 2
