"""Direct noise optimisation: all of the sampler's noises are optimised through the whole sampling run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.baselines.noise_ascent import NoiseAscent, own_noise
from nulltta.config import number, whole
from nulltta.contracts import Stream


@dataclass(frozen=True, kw_only=True)
class DNO:
    """Maximise r(D(x_0(z))) + ρ·E_Π[log P(Πz)] over z = (x_T, z_1, ..., z_T) (DNO, arXiv 2405.18881).

    The ascent is AdamW's, with the gradient of each prompt clipped. It was published with T = 50 and η = 1.

    Cost per prompt: that of `NoiseAscent`.

    Attributes:
        iterations: n, how often the noise is moved.
        learning_rate: of AdamW.
        clip: the largest norm of a prompt's gradient.
        regularisation: ρ, the weight of the noise's log-probability; 0 leaves it out.
        permutations: how many random permutations Π stand for the expectation.
    """

    iterations: int = 100
    learning_rate: float = 0.01
    clip: float = 1.0
    regularisation: float = 0.0
    permutations: int = 100

    def __post_init__(self) -> None:
        whole(self, "iterations", at_least=0)
        whole(self, "permutations", at_least=1)
        for name in ("learning_rate", "clip", "regularisation"):
            number(self, name)

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        noise = torch.stack(own_noise(problem), dim=1)  # (B, 1 + T, C, h, w)
        optimiser = torch.optim.AdamW([noise], lr=self.learning_rate, maximize=True)

        def regulariser(noise: Tensor, iteration: int) -> Tensor:
            generators = problem.generators(iteration, "permute")
            return self.regularisation * torch.stack(
                [self._log_probability(z, generator) for z, generator in zip(noise.flatten(1), generators, strict=True)]
            )

        ascent = NoiseAscent(
            noise, [], optimiser, clip=self.clip, regulariser=regulariser if self.regularisation else None
        )
        return (yield from ascent.run(problem, self.iterations))

    def _log_probability(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Return E_Π[log P(Πz)] of one prompt's noise (D,)."""
        orders = [torch.randperm(len(z), generator=generator).to(z.device) for _ in range(self.permutations)]
        return torch.stack([log_probability(z[order]) for order in orders]).mean()


def log_probability(z: Tensor, k: int = 4) -> Tensor:
    """Return an upper bound of the log-probability that Gaussian noise has a mean and covariance as far off as z (D,).

    With z cut into m pieces of k numbers (k = 4 in the release), M1 = ‖mean‖ and M2 = ‖covariance − I‖ (spectral),

        log P = log min(2e^{−m·M1²/(2k)}, 1) + log min(2e^{−m·max(√(1+M2) − 1 − √(k/m), 0)²/2}, 1).
    """
    pieces = z[: len(z) // k * k].view(-1, k)
    m = len(pieces)
    M1 = torch.linalg.vector_norm(pieces.mean(0))
    M2 = torch.linalg.matrix_norm(pieces.T @ pieces / m - torch.eye(k).to(z), ord=2)
    off = ((1 + M2).sqrt() - 1 - math.sqrt(k / m)).clamp(min=0)
    exponents = torch.stack([m * M1.square() / (2 * k), m * off.square() / 2])
    return (math.log(2) - exponents).clamp(max=0).sum()
