"""Guidance by the reward's gradient, in the manner of diffusion posterior sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import look, preview
from nulltta.baselines.particles import guided_view, move, require_gradient
from nulltta.config import number
from nulltta.contracts import Outcome, Step, Stream
from nulltta.scoring import require_slope


@dataclass(frozen=True, kw_only=True)
class DPS:
    """Shift each step's mean along the reward's gradient through the clean estimate (arXiv 2209.14687, algorithm 1).

        x_{t−1} = m(x_t) + ζ·∇_{x_t} r(D(x̂0(x_t))) + σ_t·z

    The published residual −‖y − A(x̂0)‖ is replaced by the reward r, in whose unit ζ is therefore measured: the
    published ζ of 0.3 to 1 is for a residual in pixels, and a reward that spans a hundredth needs a hundred times more.

    Cost per prompt: 2T denoiser branches with gradient, none without; T decodings and scores with gradient, 1 without.

    Attributes:
        scale: ζ.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        number(self, "scale")

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, B = problem, len(problem.prompts)
        require_gradient(p)
        x = initial = p.latents[:, :1]
        first = torch.zeros(B, dtype=torch.long)
        for i, step in enumerate(p.schedule()):
            view = look(p, x, step, gradient=True)
            if i == 0:
                require_slope(p.reward, view.slope)
            mean, std = move(p, x, guided_view(p, view), step)
            x = mean + self.scale * view.slope + std * p.noise(i, step, x[:, 0], 1)
            yield replace(Step.unscored(i, step.timestep, B, preview(p, view, first)), inner_rewards=view.rewards.T)
        view = look(p, x, None)
        return Outcome(view.images, view.rewards, first, initial[:, 0], latents=view.x0)
