"""CMA-ES, the inner loop without any derivative, in the span of the encodings of common words.

The algorithm is Hansen's tutorial's (arXiv 1604.00772).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nulltta.algorithm.embeddings import batch_size, free, transform
from nulltta.algorithm.gradients import ROWS, Function, evaluate_around
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.optimiser import require_finite
from nulltta.contracts import Embedding, GuidedModel
from nulltta.errors import InvalidValue

COMPONENTS = 32
"""The number of principal components of the words' encodings that span the search."""

WORDS = """
cat dog bird fish horse lion fox frog owl turtle butterfly man woman child face hand eye crowd robot ghost house
castle tent tower bridge street city village room kitchen window door car bicycle train boat rocket airplane
tree flower leaf grass forest mountain river lake sea beach sky cloud sun moon star snow rain fire apple banana
lemon cherries bread pizza cake mushroom carrot cup bottle chair table bed book lamp clock key guitar violin
ball balloon umbrella hat crown shoe dress glass metal wood stone paper gold silver red orange yellow green blue
purple pink brown black white gray dark bright pale colourful round square small large old new smooth rough
sharp blurred simple detailed empty crowded near far left right top bottom one two three many photo painting
drawing sketch cartoon poster portrait landscape pattern shadow light reflection texture background style
morning night winter summer happy sad calm busy beautiful ugly
"""  # common words of pictures: things, places, colours, looks


@dataclass(frozen=True, slots=True)
class Span:
    """A subspace of null embeddings.

    Attributes:
        basis: r orthonormal directions, (r, ...) per named tensor.
    """

    basis: Embedding

    @property
    def rank(self) -> int:
        """r."""
        return batch_size(self.basis)

    def vectors(self, coordinates: Tensor) -> dict[str, Tensor]:
        """Convert coordinates (B, N, r) to vectors, (B, N, ...) per named tensor.

        They are scaled by √(D/r), so that coordinates drawn from N(0, I) give vectors as long as white noise in all D
        dimensions: a radius means the same distance in every subspace.
        """
        dimensions = sum(u[0].numel() for u in self.basis.values())
        z = coordinates * (dimensions / self.rank) ** 0.5
        return transform(self.basis, lambda u: torch.einsum("bnr,r...->bn...", z.to(u), u))


@torch.no_grad()
def word_basis(
    model: GuidedModel, words: Sequence[str] = (), components: int = COMPONENTS, like: Embedding | None = None
) -> dict[str, Tensor]:
    """Return the first principal components of the encodings of words, orthonormal over all tensors together.

    Args:
        model: encodes the words.
        words: the words; `WORDS` if empty.
        components: how many components.
        like: null texts (B, ...), to whose number of tokens encodings of other lengths are cut or padded with zeros;
            by default the first encoding's.

    Raises:
        InvalidValue: if the encodings span fewer.
    """
    words = words or WORDS.split()
    parts = MicroBatch().map(lambda rows: _encoded(model, [words[row] for row in rows.tolist()]), len(words))
    shapes = {name: value.shape[1:] for name, value in free(like or parts[0]).items()}
    encoded = {name: torch.cat([_fitted(part[name], shape) for part in parts]) for name, shape in shapes.items()}
    flat = torch.cat([value.double().flatten(1) for value in encoded.values()], dim=1)  # (words, D)
    _, sizes, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    if components > len(sizes) or not sizes[components - 1] > 1e-6 * sizes[0]:
        raise InvalidValue(f"the model's encodings of {len(words)} words span fewer than {components} directions")
    pieces = axes[:components].split([value[0].numel() for value in encoded.values()], dim=1)
    return {
        name: piece.unflatten(1, value.shape[1:]).to(value)
        for (name, value), piece in zip(encoded.items(), pieces, strict=True)
    }


def _encoded(model: GuidedModel, words: Sequence[str]) -> dict[str, Tensor]:
    """Encode words as prompts."""
    return free(model.encode(words, [""] * len(words))[0])


def _fitted(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Cut rows of values to a shape, and pad with zeros what is shorter."""
    cut = values[(slice(None), *(slice(size) for size in shape))]
    missing = [size - there for size, there in zip(shape, cut.shape[1:], strict=True)]
    return functional.pad(cut, [side for size in reversed(missing) for side in (0, size)])


class CMA:
    """The search distribution N(m, σ²C) of one prompt in r coordinates; the caller keeps m.

    This is figure 6 of the tutorial with its default constants and positive weights only: λ candidates, λ/2 parents.
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
        """Draw λ candidates as offsets from m: N(0, σ²C), (λ, r)."""
        z = torch.randn((self.population, len(self.axes)), generator=generator, dtype=torch.float64)
        return self.sigma * (z * self.lengths) @ self.axes.T

    def learn(self, offsets: Tensor, values: Tensor) -> Tensor:
        """Learn from the values (λ,) of the candidates drawn, higher being better; return the move of m, (r,)."""
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
    """Ascent by CMA-ES on each prompt's φ' within a span; an inner step is one generation, of which ranks count.

    Args:
        null: φ', the first mean of each prompt's search distribution.
        span: the subspace that is searched.
        population: the evaluations of J per generation, the tutorial's λ.
        radius: μ, the first σ; the same distance in φ' as `ZerothOrder`'s.
    """

    def __init__(self, null: Embedding, span: Span, population: int, radius: float) -> None:
        self.span, self.memory = span, MicroBatch(ROWS)
        self.searches = [CMA(span.rank, population, radius) for _ in range(batch_size(null))]

    def step(
        self, objective: Function, null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Evaluate one generation and move φ'; the rewards (N,) are the generation's means."""
        drawn = [search.draw(generator) for search, generator in zip(self.searches, generators, strict=True)]
        terms = evaluate_around(objective, null, self.span.vectors(torch.stack(drawn)), self.memory)  # (N, λ)
        require_finite(torch.isfinite(terms.value))
        values = terms.value.double().cpu()
        moves = torch.stack([search.learn(*seen) for search, *seen in zip(self.searches, drawn, values, strict=True)])
        moved = {name: null[name] + move[:, 0] for name, move in self.span.vectors(moves[:, None]).items()}
        return {**null, **moved}, terms.reward.mean(1)
