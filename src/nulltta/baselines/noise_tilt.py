"""Each step's noise is tilted along the reward's gradient, while the step's mean stays where it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import look, preview
from nulltta.baselines.particles import guided_view, move, require_gradient
from nulltta.config import number
from nulltta.contracts import Outcome, Step, Stream
from nulltta.errors import InvalidValue
from nulltta.scoring import require_slope


@dataclass(frozen=True, kw_only=True)
class NoiseTilt:
    """Mix the reward's whitened gradient into each step's noise (NTRK, also NoiseTilt, arXiv 2606.18066).

        x_{t−1} = m(x_t) + σ_t·(√(1−ρ²)·z + ρ·w),  w = whitened ∇_{x_t} r(D(x̂0(x_t)))

    Whitening keeps the order of the gradient's elements and gives them the values of a normal sample
    (`gaussian_ranks`), so that the tilted noise has nearly the norm of noise, and the method does not depend on the
    reward's unit. A step without noise, as the last one often is, is taken as it is.

    The form of the update and ρ = 0.3 are those of a summary of the paper. That the official implementation whitens by
    ranks, and that it tilts every step, was not verified.

    Cost per prompt: 2T denoiser branches with gradient, none without; T decodings and scores with gradient, 1 without.

    Attributes:
        strength: ρ, between 0 (plain sampling) and 1 (no noise but the gradient).
    """

    strength: float = 0.3

    def __post_init__(self) -> None:
        number(self, "strength")
        if self.strength > 1:
            raise InvalidValue(f"must lie between 0 and 1, not {self.strength:g}", "strength")

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, B, rho = problem, len(problem.prompts), self.strength
        require_gradient(p)
        x = initial = p.latents[:, :1]
        first = torch.zeros(B, dtype=torch.long)
        for i, step in enumerate(p.schedule()):
            view = look(p, x, step, gradient=True)
            if i == 0:
                require_slope(p.reward, view.slope)
            mean, std = move(p, x, guided_view(p, view), step)
            z = p.noise(i, step, x[:, 0], 1)
            tilted = (1 - rho**2) ** 0.5 * z + rho * gaussian_ranks(view.slope.flatten(0, 1)).view_as(z)
            x = mean + std * tilted
            yield replace(Step.unscored(i, step.timestep, B, preview(p, view, first)), inner_rewards=view.rewards.T)
        view = look(p, x, None)
        return Outcome(view.images, view.rewards, first, initial[:, 0], latents=view.x0)


def gaussian_ranks(values: Tensor) -> Tensor:
    """Replace each row's elements (n, ...) by the normal quantiles of their ranks: the k-th smallest of D elements
    becomes Φ⁻¹((k − ½)/D), so that a row has mean 0 and a variance just below 1."""
    flat = values.flatten(1)
    ranks = flat.argsort(dim=1, stable=True).argsort(dim=1).to(torch.float32)
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / flat.shape[1])
    return quantiles.view_as(values).to(values)
