"""Each step's noise is tilted along the reward's gradient, while the step's mean stays where it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.tilt import require_noise, tilted
from nulltta.algorithm.views import GradientAt
from nulltta.baselines.particles import along_slope
from nulltta.config import number, one_of
from nulltta.contracts import Stream
from nulltta.errors import InvalidValue


@dataclass(frozen=True, kw_only=True)
class NoiseTilt:
    """Mix the reward's whitened gradient into each step's noise (NTRK, also NoiseTilt, arXiv 2606.18066).

        x_{t−1} = m(x_t) + σ_t·(√(1−ρ²)·z + ρ·w),  w = whitened ∇_{x_t} r(D(x̂0(x_t)))

    `nulltta.algorithm.tilt` says how it is whitened. A step without noise, as the last one often is, is taken as it is.

    The form of the update and ρ = 0.3 are those of a summary of the paper. That the official implementation whitens by
    ranks, and that it tilts every step, was not verified.

    With the gradient at the clean estimates, ∇_{x̂0} r(D(x̂0)), the method is our own variant, "clean-tilt": nothing goes
    back through the denoiser, so that a sample takes as many evaluations as plain sampling.

    Cost per prompt: 2T denoiser branches, with gradient unless it is taken at the clean estimates; T decodings and
    scores with gradient, 1 without.

    Attributes:
        strength: ρ, between 0 (plain sampling) and 1 (no noise but the gradient).
        gradient_at: what the gradient is taken with respect to: "latents", x_t, as published, or "estimates", x̂0.
    """

    strength: float = 0.3
    gradient_at: GradientAt = "latents"

    def __post_init__(self) -> None:
        one_of(self, "gradient_at", get_args(GradientAt))
        number(self, "strength")
        if self.strength > 1:
            raise InvalidValue(f"must lie between 0 and 1, not {self.strength:g}", "strength")

    def evaluations(self, T: int) -> int:
        """Return the denoiser evaluations of T denoising steps; one that is differentiated counts twice."""
        return (4 if self.gradient_at == "latents" else 2) * T

    def __call__(self, problem: Problem) -> Stream:
        if self.strength:
            require_noise(problem.model, problem.latents[:, 0], problem.schedule(), "strength")

        def advance(mean: Tensor, std: float, z: Tensor, slope: Tensor) -> Tensor:
            return mean + std * tilted(z, slope[:, 0], self.strength)

        return along_slope(problem, advance, self.gradient_at)
