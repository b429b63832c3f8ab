"""A claim becomes pixels: shapes on a pale background, at places and sizes that are multiples of four pixels.

The multiples line the outlines up with the patches of the autoencoder, which spares a small denoiser the learning of
each outline at sixteen offsets.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .grammar import Claim
from .shapes import COLOURS, coverage

PIXELS = 64
LATTICE = 4
MARGIN = 4
GAP = 4
SIZES = {1: (20, 32), 2: (16, 28), 3: (16, 20), 4: (16, 20), 5: (16, 16)}
"""The smallest and the largest side of a thing in pixels, by the number of things in the scene."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in a scene: a shape in a colour, its top left corner and its side in pixels."""

    shape: str
    colour: str
    left: int
    top: int
    size: int


def arrange(claim: Claim, rng: random.Random) -> list[Thing]:
    """Choose places and sizes that agree with a claim; every group has a colour.

    Things are at least GAP pixels apart and MARGIN pixels from the border. A relation holds clearly: the offset along
    its axis is more than one and a half times the offset across.
    """
    kinds = [(group.shape, group.colour or "") for group in claim.groups for _ in range(group.number)]
    while True:
        things: list[Thing] = []
        for shape, colour in kinds:
            size = rng.randrange(SIZES[claim.number][0], SIZES[claim.number][1] + 1, LATTICE)
            corners = range(MARGIN, PIXELS - MARGIN - size + 1, LATTICE)
            free = [
                thing
                for x in corners
                for y in corners
                if _fits(thing := Thing(shape, colour, x, y, size), things, claim)
            ]
            if not free:
                break
            things.append(rng.choice(free))
        else:
            return things


def _fits(thing: Thing, others: Sequence[Thing], claim: Claim) -> bool:
    """Whether a thing keeps apart from those before it, and in its relation to the first."""
    if not all(_apart(thing, other) for other in others):
        return False
    return not others or claim.relation is None or holds(claim.relation, *_offset(others[0], thing), slope=1.5)


def _apart(a: Thing, b: Thing) -> bool:
    """Whether there are GAP pixels or more between two bounding boxes."""
    across = max(a.left, b.left) - min(a.left + a.size, b.left + b.size)
    along = max(a.top, b.top) - min(a.top + a.size, b.top + b.size)
    return max(across, along) >= GAP


def _offset(a: Thing, b: Thing) -> tuple[float, float]:
    """Return how far the centre of `a` lies to the right of and below the centre of `b`."""
    return a.left + a.size / 2 - b.left - b.size / 2, a.top + a.size / 2 - b.top - b.size / 2


def holds(relation: str, right: float, down: float, slope: float = 1.0) -> bool:
    """Return whether something that lies `right` and `down` of another is "left of", "above" ... it.

    The offset along the axis of the relation must be more than `slope` times the offset across.
    """
    along, across = (right, down) if relation in ("left of", "right of") else (down, right)
    return (-along if relation in ("left of", "above") else along) > slope * abs(across)


def paint(things: Sequence[Thing], rng: random.Random) -> Tensor:
    """Draw things on a background of a random pale tint: (3, PIXELS, PIXELS) uint8."""
    canvas = np.empty((PIXELS, PIXELS, 3), np.float32)
    canvas[:] = [rng.randint(222, 250) for _ in range(3)]
    for thing in things:
        alpha = coverage(thing.shape, thing.size)[..., None]
        colour = np.array(COLOURS[thing.colour], np.float32) + rng.randint(-8, 8)
        window = canvas[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size]
        window += alpha * (colour - window)
    return torch.from_numpy(canvas.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def render(claims: Sequence[Claim], rng: random.Random) -> Tensor:
    """Draw one scene per claim: (B, 3, PIXELS, PIXELS) uint8. Every group has a colour."""
    return torch.stack([paint(arrange(claim, rng), rng) for claim in claims])
