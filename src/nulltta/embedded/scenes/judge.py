"""The judge of the scenes world: it reads things off an image by rules, so that there is no network to fool.

The background is the median colour of the border; things are connected regions that differ from it; a thing's shape is
the drawing that it overlaps most, and its colour is the nearest of the palette. Where neither drawing nor colour is
clear, the judge says that it cannot tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .grammar import Claim, parse
from .render import LATTICE, PIXELS, SIZES, holds
from .shapes import COLOURS, SHAPES, Mask, coverage

FACTS = ("objects", "count", "colours", "position")
CONTRAST = 60.0
"""How far a pixel must be from the background, in units of 255, to belong to a thing."""
SPECK = 16
"""Regions of fewer pixels are not objects."""
OVERLAP = 0.72
"""The least overlap (intersection over union) with a drawing for a shape to be read."""
LEAD = 0.02
"""How much the best drawing's overlap must exceed that of any other shape."""
COLOUR_ERROR = 75.0
"""How far a colour may be from the palette's, in units of 255."""
EDGE = 0.35
"""A thing ends where less than this share of a pixel has its colour."""
STRETCH = 1.3
"""How many times as wide as high, or as high as wide, a thing may be to be compared without regard to this."""
SIDE = 24
"""The side of the square in which shapes are compared."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One thing in an image.

    Attributes:
        shape: None where the judge cannot tell.
        colour: None where the judge cannot tell.
        x: the centre of its bounding box in pixels, from the left.
        y: the same from the top.
        overlap: with the drawing of the likeliest shape, in [0, 1].
    """

    shape: str | None
    colour: str | None
    x: float
    y: float
    overlap: float


def read(images: Tensor) -> list[list[Sighting]]:
    """Return the things in each image (B, 3, H, W) in [0, 1]."""
    if images.shape[-2:] != (PIXELS, PIXELS):
        images = functional.interpolate(images, (PIXELS, PIXELS), mode="bilinear", antialias=True)
    pixels = images.detach().cpu().float().clamp(0, 1).mul(255).permute(0, 2, 3, 1).numpy()
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], 1)
    background = np.median(border, axis=1)
    difference = pixels - background[:, None, None]
    labels = regions(np.linalg.norm(difference, axis=-1) > CONTRAST)
    return [_sightings(*image) for image in zip(difference, background, labels, strict=True)]


def regions(masks: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Label the connected regions (eight neighbours) of each mask (B, H, W): 0 outside, one positive number inside."""
    _, height, width = masks.shape
    labels = np.where(masks, np.arange(1, height * width + 1, dtype=np.int16).reshape(height, width), np.int16(0))
    while True:
        padded = np.pad(labels, ((0, 0), (1, 1), (1, 1)))
        rows = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
        spread = np.maximum(np.maximum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])
        spread = np.where(masks, spread, np.int16(0))
        if np.array_equal(spread, labels):
            return labels
        labels = spread


def _sightings(difference: Mask, background: Mask, labels: NDArray[np.int16]) -> list[Sighting]:
    """Read every region of one image."""
    names, areas = np.unique(labels[labels > 0], return_counts=True)
    return [_sighting(difference, background, labels == name) for name in names[areas >= SPECK]]


def _sighting(difference: Mask, background: Mask, inside: NDArray[np.bool_]) -> Sighting:
    """Read one region: its colour where that is strongest, its shape from how much of each pixel has that colour."""
    strength = np.linalg.norm(difference, axis=-1)
    core = inside & (strength >= np.quantile(strength[inside], 0.7))
    colour = np.median(difference[core], axis=0)
    errors = {name: float(np.linalg.norm(colour + background - value)) for name, value in COLOURS.items()}
    nearest = min(errors, key=errors.__getitem__)
    share = (difference @ colour / (colour @ colour)).clip(0, 1) * inside
    ys, xs = np.nonzero(share > EDGE)
    shape, overlap, lead = match(share)
    return Sighting(
        shape=shape if overlap >= OVERLAP and lead >= LEAD else None,
        colour=nearest if errors[nearest] <= COLOUR_ERROR else None,
        x=float(xs.min() + xs.max()) / 2,
        y=float(ys.min() + ys.max()) / 2,
        overlap=overlap,
    )


def match(share: Mask) -> tuple[str, float, float]:
    """Return the shape that a mask (h, w) overlaps most, that overlap, and its lead over the next shape.

    A thing that is nearly as wide as high is also compared without regard to its proportions: a generated circle may be
    an oval, and a square a rectangle.
    """
    thing = cut_out(share)
    height, width = thing.shape
    fits = (padded, stretched) if max(height, width) <= STRETCH * min(height, width) else (padded,)
    best = np.max([_overlaps(fit(thing), *templates(fit)) for fit in fits], axis=0)
    first, second = np.argsort(best)[::-1][:2]
    return SHAPES[first], float(best[first]), float(best[first] - best[second])


def _overlaps(thing: Mask, drawings: Mask, owners: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the largest overlap of a thing with the drawings of each shape."""
    overlaps = np.minimum(drawings, thing).sum((1, 2)) / np.maximum(drawings, thing).sum((1, 2))
    return np.array([overlaps[owners == k].max() for k in range(len(SHAPES))])


def cut_out(share: Mask) -> Mask:
    """Return the smallest rectangle with all that a mask covers by more than EDGE."""
    ys, xs = np.nonzero(share > EDGE)
    return share[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def padded(thing: Mask) -> Mask:
    """Scale a mask to SIDE pixels in its own proportions, in the middle of a square."""
    height, width = thing.shape
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = thing
    return stretched(square)


def stretched(thing: Mask) -> Mask:
    """Scale a mask to a square of SIDE pixels."""
    image = Image.fromarray(thing.astype(np.float32))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def soften(mask: Mask) -> Mask:
    """Replace each pixel by the mean of its 3×3 neighbourhood, as generated outlines are soft."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 1), (3, 3))
    mean: Mask = windows.mean((2, 3), dtype=np.float32)
    return mean


@cache
def templates(fit: Callable[[Mask], Mask]) -> tuple[Mask, NDArray[np.int64]]:
    """Return the drawings (N, SIDE, SIDE), sharp and soft, of every shape at every size, and their shapes' numbers.

    `fit` is one of `padded` and `stretched`.
    """
    sizes = range(min(low for low, _ in SIZES.values()), max(high for _, high in SIZES.values()) + 1, LATTICE)
    drawings, owners = [], []
    for k, shape in enumerate(SHAPES):
        for size in sizes:
            sharp = np.pad(coverage(shape, size), 2)
            drawings += [fit(cut_out(sharp)), fit(cut_out(soften(sharp)))]
            owners += [k, k]
    return np.stack(drawings), np.array(owners)


def compare(claim: Claim, seen: Sequence[Sighting]) -> dict[str, bool | None]:
    """Check each fact that a claim states: True, False, or None where the judge cannot tell.

    Returns:
        "objects": these shapes and no others; "count": the right number of each; "colours": everything in the colour
        that is stated for its shape; "position": the relation holds.
    """
    unclear = any(thing.shape is None for thing in seen)
    missing = None if unclear else False
    stated = {group.shape: group.number for group in claim.groups}
    counts = Counter(thing.shape for thing in seen if thing.shape)
    verdict: dict[str, bool | None] = {
        "objects": False if counts.keys() - stated.keys() else True if counts.keys() == stated.keys() else missing,
        "count": _count(stated, counts, len(seen)),
    }
    if verdict["objects"] and unclear:
        verdict["objects"] = None
    coloured = [group for group in claim.groups if group.colour]
    if coloured:
        found = [_colour([t for t in seen if t.shape == g.shape], g.colour, missing) for g in coloured]
        verdict["colours"] = False if False in found else None if None in found else True
    if claim.relation:
        verdict["position"] = _position(claim, seen) if not unclear else None
    return verdict


def _count(stated: dict[str, int], counts: Counter[str], total: int) -> bool | None:
    """Whether the numbers are right; undecided where things that cannot be read may make up what is missing."""
    if total != sum(stated.values()) or any(counts[shape] > stated.get(shape, 0) for shape in counts):
        return False
    return True if counts.total() == total else None


def _colour(things: Sequence[Sighting], colour: str | None, missing: bool | None) -> bool | None:
    """Whether all things of a group have its colour; `missing` where there are none."""
    if not things:
        return missing
    if any(thing.colour not in (colour, None) for thing in things):
        return False
    return None if any(thing.colour is None for thing in things) else True


def _position(claim: Claim, seen: Sequence[Sighting]) -> bool:
    """Whether the one thing of each group lies as the relation says."""
    pairs = [[thing for thing in seen if thing.shape == group.shape] for group in claim.groups]
    if any(len(things) != 1 for things in pairs):
        return False
    (a,), (b,) = pairs
    return bool(holds(claim.relation or "", a.x - b.x, a.y - b.y))


class SceneJudge:
    """Checks the facts of prompts on images, by rules. It is not differentiable, on purpose."""

    name = "facts"
    differentiable = False

    def verdicts(self, images: Tensor, prompts: Sequence[str]) -> list[dict[str, bool | None]]:
        """Return the facts of each prompt that its image shows; None where the judge cannot tell.

        Raises:
            InvalidValue: if a prompt is outside the grammar.
        """
        claims = [parse(prompt) for prompt in prompts]
        return [compare(claim, seen) for claim, seen in zip(claims, read(images), strict=True)]

    def facts(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the share of each prompt's facts that its image clearly shows (B,).

        Raises:
            InvalidValue: if a prompt is outside the grammar.
        """
        found = self.verdicts(images, prompts)
        return torch.tensor([sum(v is True for v in one.values()) / len(one) for one in found])

    __call__ = facts

    def all_right(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return 1 where an image clearly shows all facts of its prompt, else 0 (B,)."""
        return (self.facts(images, prompts) == 1).float()
