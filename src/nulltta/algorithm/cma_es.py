"""The inner loop without any derivative: CMA-ES in the span of a few directions (Hansen, arXiv 1604.00772)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nulltta.algorithm.directions import Span, word_basis
from nulltta.algorithm.embeddings import take
from nulltta.algorithm.gradients import ROWS, around, of_rows
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import Terms
from nulltta.algorithm.optimiser import NOT_FINITE
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel
from nulltta.errors import InvalidValue


class CMA:
    """The search distribution N(m, σ²C) of one prompt in r coordinates; the caller keeps m.

    The tutorial's figure 6, with its default constants and positive weights only: λ candidates, λ/2 parents.
    """

    def __init__(self, rank: int, population: int, sigma: float) -> None:
        w = math.log((population + 1) / 2) - torch.arange(1, population // 2 + 1, dtype=torch.float64).log()
        self.weights = w / w.sum()
        r, mass = rank, 1 / self.weights.square().sum().item()
        self.mass = mass  # μ_eff
        self.c_sigma = (mass + 2) / (r + mass + 5)
        self.damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (r + 1)) - 1) + self.c_sigma
        self.c_c = (4 + mass / r) / (r + 4 + 2 * mass / r)
        self.c_1 = 2 / ((r + 1.3) ** 2 + mass)
        self.c_mu = min(1 - self.c_1, 2 * (0.25 + mass - 2 + 1 / mass) / ((r + 2) ** 2 + mass))
        self.chi = math.sqrt(r) * (1 - 1 / (4 * r) + 1 / (21 * r**2))  # E‖N(0, I)‖
        self.population, self.sigma, self.generation = population, sigma, 0
        self.path_sigma, self.path_c = torch.zeros(2, r, dtype=torch.float64)
        self.covariance = self.axes = torch.eye(r, dtype=torch.float64)  # C = B·D²·Bᵀ: B the axes, D the lengths
        self.lengths = torch.ones(r, dtype=torch.float64)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Candidates less m: λ draws of N(0, σ²C), (λ, r)."""
        z = torch.randn((self.population, len(self.axes)), generator=generator, dtype=torch.float64)
        return self.sigma * (z * self.lengths) @ self.axes.T

    def learn(self, offsets: Tensor, values: Tensor) -> Tensor:
        """From the values (λ,) of the candidates drawn, higher being better: the move of m, (r,)."""
        best = values.argsort(descending=True, stable=True)[: len(self.weights)]
        y = offsets[best] / self.sigma
        mean = self.weights @ y  # ⟨y⟩_w
        move = self.sigma * mean
        self.generation += 1
        c, r = self.c_sigma, len(mean)
        whitened = self.axes @ (self.axes.T @ mean / self.lengths)  # C^(−½)·⟨y⟩_w
        self.path_sigma = (1 - c) * self.path_sigma + math.sqrt(c * (2 - c) * self.mass) * whitened
        length = self.path_sigma.norm().item() / self.chi
        settled = length / math.sqrt(1 - (1 - c) ** (2 * self.generation)) < 1.4 + 2 / (r + 1)  # h_σ
        self.sigma *= math.exp(min(1.0, c / self.damping * (length - 1)))
        c = self.c_c
        self.path_c = (1 - c) * self.path_c + settled * math.sqrt(c * (2 - c) * self.mass) * mean
        rank_one = self.path_c.outer(self.path_c) + (not settled) * c * (2 - c) * self.covariance
        rank_mu = (y.T * self.weights) @ y
        self.covariance = (1 - self.c_1 - self.c_mu) * self.covariance + self.c_1 * rank_one + self.c_mu * rank_mu
        squares, self.axes = torch.linalg.eigh(self.covariance)
        self.lengths = squares.clamp(min=1e-20).sqrt()
        return move


class Evolution:
    """Ascent by CMA-ES on each prompt's φ' within a span: K evaluations of J a generation, of which ranks count.

    A prompt's search distribution has φ' for its mean, and starts afresh at each denoising step, as Adam does.

    span: its coordinates are what is searched.
    population: K, the tutorial's λ.
    radius: μ, the first σ; the same distance in φ' as `ZerothOrder`'s.
    """

    def __init__(self, span: Span, population: int, radius: float) -> None:
        self.span, self.population, self.radius = span, population, radius
        self.memory = MicroBatch(ROWS)

    @torch.no_grad()
    def __call__(
        self,
        objective: Callable[[Embedding], Terms],
        null: Embedding,
        *,
        steps: int,
        generators: Sequence[torch.Generator],
        active: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """n generations from φ': the new φ' and the rewards (n, B), each a generation's mean, NaN where there was none.

        active: (B,) bool, the prompts whose φ' may still move; the others cost nothing.

        Raises:
            NullTTAError: the objective is not finite.
        """
        null, rows = dict(null), active.nonzero().flatten()
        rewards = torch.full((steps, len(active)), torch.nan)
        if not len(rows):
            return null, rewards[:0]
        searches = [CMA(self.span.rank, self.population, self.radius) for _ in rows]
        drawing = [generators[row] for row in rows.tolist()]
        part = of_rows(objective, rows, len(active))
        for generation in rewards:
            drawn = [search.draw(generator) for search, generator in zip(searches, drawing, strict=True)]
            terms = around(part, take(null, rows), self.span.vectors(torch.stack(drawn)), self.memory)  # (N, K)
            if not bool(torch.isfinite(terms.value).all()):
                raise InvalidValue(NOT_FINITE)
            values = terms.value.double().cpu()
            moves = torch.stack([search.learn(*seen) for search, *seen in zip(searches, drawn, values, strict=True)])
            for name, move in self.span.vectors(moves[:, None]).items():
                null[name] = null[name].index_add(0, rows.to(move.device), move[:, 0])
            generation[rows] = terms.reward.mean(1).float().cpu()
        return null, rewards


def evolution(config: NullTTAConfig, model: GuidedModel) -> Evolution:
    """CMA-ES of the configuration's K and μ, in the span of words."""
    return Evolution(Span(word_basis(model)), config.zeroth_order_samples, config.zeroth_order_radius)
