"""Guidance by the reward's gradient, in the manner of diffusion posterior sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nulltta.algorithm.problem import Problem
from nulltta.baselines.lookahead import look, move, require_gradient
from nulltta.config import number
from nulltta.contracts import Outcome, Step, Stream
from nulltta.scoring import require_slope


@dataclass(frozen=True, kw_only=True)
class DPS:
    """Each step's mean is shifted uphill, as seen through the clean estimate (DPS, arXiv 2209.14687, algorithm 1):

        x_{t−1} = m(x_t) + ζ·∇_{x_t} r(D(x̂0(x_t))) + σ_t·z.

    The published residual −‖y − A(x̂0)‖ is replaced by the reward r, whose unit ζ therefore has: the published
    ζ of 0.3 to 1 is for a residual in pixels, and a reward that spans a hundredth wants a hundred times more.

    Cost for a prompt: 2T denoiser branches with gradient, none without; T decodings and scores with, 1 without.
    """

    scale: float = 1.0  # ζ

    def __post_init__(self) -> None:
        number(self, "scale")

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, B = problem, len(problem.prompts)
        require_gradient(p)
        x = initial = p.latents[:, :1]
        zeros = torch.zeros(B)
        for i, step in enumerate(p.schedule()):
            view = look(p, x, step, gradient=True)
            if i == 0:
                require_slope(p.reward, view.slope)
            mean, std = move(p, x, view.eps, step)
            x = mean + self.scale * view.slope + std * p.noise(i, step, x[:, 0], 1)
            yield Step(i, step.timestep, view.rewards.T, torch.empty(B, 0), zeros.long(), zeros, view.images[:, 0])
        view = look(p, x, None)
        return Outcome(view.images, view.rewards, zeros.long(), initial[:, 0])
