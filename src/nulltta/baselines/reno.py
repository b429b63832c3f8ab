"""Reward-based noise optimisation: of the sampler's noises, only the initial latent is optimised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.baselines.dno import ascend, own_noise
from nulltta.config import number, whole
from nulltta.contracts import Stream


@dataclass(frozen=True, kw_only=True)
class ReNO:
    """max over x_T of λ·r(D(x_0(x_T))) + w·K(x_T), K(x) = (d−1)·log‖x‖ − ‖x‖²/2 (ReNO, arXiv 2406.04312).

    K is the log-density of the norm of d Gaussian numbers. Ascent by gradient with Nesterov momentum, the gradient of
    each prompt clipped; the step noises stay plain sampling's. One `Step` an iteration, its timestep 0, as each
    samples to the end; the best image of all is returned. Published for models of one step: here it differentiates
    through all T of them.

    Cost for a prompt: 2T·n denoiser branches with gradient, each computed once more in the backward pass (a step
    keeps its input alone), and 2T without; n decodings and scores with gradient, 1 without.

    Attributes:
        iterations: n; the latent is moved so often, and scored once more.
        reward_weight: λ. Published, summed: ImageReward 1, HPSv2 5.
        learning_rate, momentum: of the ascent. A clipped step is clip·learning_rate long, before momentum.
        clip: the largest norm of a prompt's gradient.
        norm_weight: w.
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
        return (
            yield from ascend(
                problem, x, noises, optimiser, self.iterations, self.clip, self.reward_weight,
                regulariser=lambda x, _: self.norm_weight * log_norm_density(x),
            )
        )  # fmt: skip


def log_norm_density(x: Tensor) -> Tensor:
    """K(x) of each prompt, (B, ...) -> (B,), up to a constant."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return (x[0].numel() - 1) * norm.log() - norm.square() / 2
