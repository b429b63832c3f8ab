"""Where zeroth-order estimators look: draws of directions in the space of null embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import free, transform
from nulltta.contracts import Embedding, GuidedModel
from nulltta.errors import InvalidValue

COMPONENTS = 32
"""Principal components of the words' encodings that directions are drawn from."""

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


class Directions(Protocol):
    """(φ' of B prompts, one generator a prompt, K) -> K directions a prompt, (B, K, ...) a floating-point tensor.

    E‖v‖² is the number of coordinates, so that a radius means the same distance whatever the directions.
    """

    def __call__(self, null: Embedding, generators: Sequence[torch.Generator], count: int) -> dict[str, Tensor]: ...


def white(null: Embedding, generators: Sequence[torch.Generator], count: int) -> dict[str, Tensor]:
    """v ~ N(0, I), each prompt's from its own generator."""
    found: dict[str, Tensor] = {}
    for name, value in free(null).items():
        shape = (count, *value.shape[1:])
        found[name] = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(value)
    return found


def antithetic(null: Embedding, generators: Sequence[torch.Generator], count: int) -> dict[str, Tensor]:
    """v, −v, ...: white noise in pairs. The curvature of J cancels; half as many independent directions."""
    return _paired(white, null, generators, count)


@dataclass(frozen=True, slots=True)
class Span:
    """v ~ N(0, I) within a subspace, in pairs ±v.

    basis: r orthonormal directions, (r, ...) a named tensor.
    """

    basis: Embedding

    def __call__(self, null: Embedding, generators: Sequence[torch.Generator], count: int) -> dict[str, Tensor]:
        return _paired(self._draw, null, generators, count)

    def _draw(
        self, null: Embedding, generators: Sequence[torch.Generator], count: int  # noqa: ARG002 - the span's own size
    ) -> dict[str, Tensor]:  # fmt: skip
        return self.vectors(torch.stack([torch.randn((count, self.rank), generator=g) for g in generators]))

    @property
    def rank(self) -> int:
        """r."""
        return len(next(iter(self.basis.values())))

    def vectors(self, coordinates: Tensor) -> dict[str, Tensor]:
        """(B, K, r) -> (B, K, ...) a named tensor: √(D/r) times as long, so that N(0, I) is as long as white noise."""
        dimensions = sum(u[0].numel() for u in self.basis.values())
        z = coordinates * (dimensions / self.rank) ** 0.5
        return transform(self.basis, lambda u: torch.einsum("bkr,r...->bk...", z.to(u), u))


@torch.no_grad()
def word_basis(model: GuidedModel, words: Sequence[str] = (), components: int = COMPONENTS) -> dict[str, Tensor]:
    """The first principal components of encodings of words (WORDS if none), orthonormal over all tensors together.

    Raises:
        NullTTAError: the words do not differ enough to span as many.
    """
    words = words or WORDS.split()
    encoded = free(model.encode(list(words), [""] * len(words))[0])
    flat = torch.cat([value.double().flatten(1) for value in encoded.values()], dim=1)  # (words, D)
    _, sizes, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    if components > len(sizes) or not sizes[components - 1] > 1e-6 * sizes[0]:
        raise InvalidValue(f"the model's encodings of {len(words)} words span fewer than {components} directions")
    pieces = axes[:components].split([value[0].numel() for value in encoded.values()], dim=1)
    return {
        name: piece.unflatten(1, value.shape[1:]).to(value)
        for (name, value), piece in zip(encoded.items(), pieces, strict=True)
    }


def _paired(
    draw: Directions, null: Embedding, generators: Sequence[torch.Generator], count: int
) -> dict[str, Tensor]:  # fmt: skip
    """±v: count/2 draws, each followed by its opposite."""
    return transform(draw(null, generators, count // 2), lambda v: torch.stack([v, -v], dim=2).flatten(1, 2))


DIRECTIONS: Mapping[str, Callable[[GuidedModel], Directions]] = {
    "white": lambda model: white,  # noqa: ARG005 - the same in every model
    "antithetic": lambda model: antithetic,  # noqa: ARG005
    "words": lambda model: Span(word_basis(model)),
}
