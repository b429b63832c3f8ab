"""Each step's noise is tilted along the reward's gradient, while the step's mean stays where it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.baselines.particles import along_slope
from nulltta.config import number
from nulltta.contracts import Stream
from nulltta.errors import InvalidValue


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

    def __call__(self, problem: Problem) -> Stream:
        rho = self.strength

        def advance(mean: Tensor, std: float, z: Tensor, slope: Tensor) -> Tensor:
            tilted: Tensor = (1 - rho**2) ** 0.5 * z + rho * gaussian_ranks(slope.flatten(0, 1)).view_as(z)
            return mean + std * tilted

        return along_slope(problem, advance)


def gaussian_ranks(values: Tensor) -> Tensor:
    """Replace each row's elements (n, ...) by the normal quantiles of their ranks: the k-th smallest of D elements
    becomes Φ⁻¹((k − ½)/D), so that a row has mean 0 and a variance just below 1."""
    flat = values.flatten(1)
    ranks = flat.argsort(dim=1, stable=True).argsort(dim=1).to(torch.float32)
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / flat.shape[1])
    return quantiles.view_as(values).to(values)
