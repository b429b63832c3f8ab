"""How one tensor becomes another when it is only rearranged, scaled and shifted: found by differentiation.

Pipelines pack latents into patches, repeat them for guidance, scale them for the denoiser, put them beside other
channels and unscale them for the decoder. Each of these is y[k] = base[k] + gain[k]·x[index[k]], row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

DIGIT = 16  # an index is read off digit by digit: whole numbers this small are exact in every dtype


@dataclass(frozen=True, slots=True)
class Affine:
    """y[k] = base[k] + gain[k]·x[index[k]] within a row.

    Attributes:
        shape: of a row of y.
        index: (numel of a row of y,), where each element comes from; None if y keeps the order of x.
        gain: one number, or one per element of a row of y; 0 where y does not depend on x.
        base: a row of y at x = 0; None if that is 0.
    """

    shape: tuple[int, ...]
    index: Tensor | None
    gain: float | Tensor
    base: Tensor | None

    def __call__(self, x: Tensor, gain: float | Tensor | None = None) -> Tensor:
        """Rows (N, ...) of x -> (N, *shape) of y, in float32; gain: in place of the one found."""
        gain = self.gain if gain is None else gain
        flat = x.flatten(1) if self.index is None else x.flatten(1)[:, self.index.to(x.device)]
        if isinstance(gain, Tensor):
            flat = flat * gain.to(x.device)
        elif gain != 1:
            divisor = _divisor(gain)
            flat = flat * gain if divisor is None else flat / divisor
        if self.base is not None:
            flat = flat + self.base.to(x.device)
        return flat.reshape(len(x), *self.shape)

    @property
    def permutes(self) -> bool:
        """Whether y holds every element of x once."""
        return self.index is None or bool(self.index.sort().values.equal(torch.arange(len(self.index))))

    def inverse_index(self) -> Tensor | None:
        """Of a permutation: where in y each element of x stands."""
        return None if self.index is None else self.index.argsort()

    def after(self, index: Tensor | None) -> Affine:
        """The same map of x[index]."""
        if index is None:
            return self
        composed = index if self.index is None else index[self.index]
        return replace(self, index=None if _identity(composed, len(index)) else composed)


def depends(target: Tensor, source: Tensor) -> bool:
    """Whether the target was computed from the source."""
    if not target.requires_grad:
        return False
    return _pull(target, source, torch.ones_like(target)) is not None


def gain_of(row: Tensor, source: Tensor) -> float | Tensor:
    """The gain of one row of y, as a number where all elements that depend on x share it."""
    pulled = _pull(row, source, torch.ones_like(row))
    if pulled is None:
        return 0.0
    gains = pulled.flatten()[pulled.flatten() != 0]
    return _one_number(gains) if len(gains) else 0.0


def found(target: Tensor | Sequence[Tensor], source: Tensor) -> tuple[Affine, list[int]]:
    """The map of each row of the target (R, ...), and which row of the source (B, ...) each comes from.

    `source` must be zero and in the target's graph; what the target then holds is its base.

    Raises:
        ValueError: with what is not so, in words.
    """
    maps, owners = [], []
    for row in target:
        each, owner = _row(row, source)
        maps.append(each)
        owners.append(owner)
    first = maps[0]
    for other in maps[1:]:
        if not same(first, other):
            raise ValueError("not every row is made from the latents in the same way")
    return first, owners


def owners_of(row: Tensor, source: Tensor) -> list[int]:
    """Return which rows of the source a row of y is made of."""
    pulled = _pull(row, source, torch.ones_like(row))
    return [] if pulled is None else pulled.flatten(1).abs().sum(1).nonzero().flatten().tolist()


def _row(row: Tensor, source: Tensor) -> tuple[Affine, int]:
    owners = owners_of(row, source)
    if not owners:
        raise ValueError("a row does not depend on the latents")
    if len(owners) != 1:
        raise ValueError(f"a row is made from the latents of {len(owners)} images")
    return of_row(row, source, owners[0]), owners[0]


def of_row(row: Tensor, source: Tensor, owner: int) -> Affine:
    """Return the map of one row of y as far as it is made of one row of the source.

    Raises:
        ValueError: with what is not so, in words.
    """
    ones = _pull(row, source, torch.ones_like(row))
    if ones is None:
        raise ValueError("a row does not depend on the latents")
    gains = ones[owner].flatten()
    used = (gains != 0).nonzero().flatten()  # j, elements of x
    safe = gains[used]
    position = torch.zeros(len(used), dtype=torch.long, device=used.device)  # k(j)
    places, power = torch.arange(row.numel(), device=row.device), 1
    while power < row.numel():
        digits = (places // power % DIGIT).to(row.dtype).view(row.shape)
        pulled = _pull(row, source, digits)
        read = torch.zeros_like(safe) if pulled is None else pulled[owner].flatten()[used] / safe
        if bool((read - read.round()).abs().max() > 0.4) or bool((read.round() < 0).any()):
            raise ValueError("the latents are mixed with each other, not only rearranged")
        position += read.round().long() * power
        power *= DIGIT
    if bool((position >= row.numel()).any()) or len(set(position.tolist())) != len(position):
        raise ValueError("an element of the latents is used more than once")
    base = row.detach().float().flatten()
    index, gain = torch.zeros(row.numel(), dtype=torch.long), torch.zeros(row.numel(), dtype=torch.float32)
    index[position.cpu()], gain[position.cpu()] = used.cpu(), safe.float().cpu()
    whole = len(position) == row.numel()
    identity = whole and _identity(index, source[0].numel())
    return Affine(
        tuple(row.shape),
        None if identity else index,
        _one_number(gain) if whole else gain,
        base.cpu() if bool((base != 0).any()) else None,
    )


def _pull(target: Tensor, source: Tensor, cotangent: Tensor) -> Tensor | None:
    if not target.requires_grad:
        return None
    try:
        return torch.autograd.grad(target, source, cotangent, retain_graph=True, allow_unused=True)[0]
    except RuntimeError as error:
        raise ValueError("the pipeline changes them in place") from error


def _one_number(gains: Tensor) -> float | Tensor:
    first = float(gains[0])
    alike = torch.allclose(gains.float(), torch.full_like(gains, first, dtype=torch.float32), rtol=1e-6, atol=0)
    return first if alike else gains


@lru_cache
def _divisor(gain: float) -> float | None:
    """What was divided by, if that is the rounder number of the two in float32, as VAE scaling factors are: to
    multiply by the gain instead is not the same to the last bit."""
    divisor = float(str(np.float32(1 / gain)))
    if len(str(divisor)) >= len(str(np.float32(gain))) or np.float32(1) / np.float32(divisor) != np.float32(gain):
        return None
    return divisor


def _identity(index: Tensor, count: int) -> bool:
    return len(index) == count and torch.equal(index, torch.arange(count))


def same(a: Affine, b: Affine) -> bool:
    """Whether two maps agree."""

    def alike(x: object, y: object) -> bool:
        if x is None or y is None:
            return x is y
        x, y = (torch.as_tensor(value, dtype=torch.float64) for value in (x, y))
        return x.shape == y.shape and torch.allclose(x, y, rtol=1e-5)

    return a.shape == b.shape and alike(a.index, b.index) and alike(a.gain, b.gain) and alike(a.base, b.base)
