"""Guidance by the reward's gradient, in the manner of diffusion posterior sampling."""

from __future__ import annotations

from dataclasses import dataclass

from nulltta.algorithm.problem import Problem
from nulltta.baselines.particles import along_slope
from nulltta.config import number
from nulltta.contracts import Stream


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

    def __call__(self, problem: Problem) -> Stream:
        return along_slope(problem, lambda mean, std, z, slope: mean + self.scale * slope + std * z)
