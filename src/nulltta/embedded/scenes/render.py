"""A claim becomes pixels: shapes on a pale background, at places and sizes that are multiples of four pixels.

The multiples line the outlines up with the patches of the autoencoder, which spares a small denoiser the learning of
each outline at sixteen offsets.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
            corners = _free_corners(size, things, claim.relation)
            if not corners:
                break
            things.append(Thing(shape, colour, *rng.choice(corners), size))
        else:
            return things


def _free_corners(size: int, others: Sequence[Thing], relation: str | None) -> list[tuple[int, int]]:
    """List where a thing can go that keeps apart from those before it, and in its relation to the first."""
    steps = np.arange(MARGIN, PIXELS - MARGIN - size + 1, LATTICE)
    left, top = steps[:, None], steps[None]
    free = np.ones((len(steps), len(steps)), bool)
    for other in others:
        across = np.maximum(left - other.left - other.size, other.left - left - size)
        along = np.maximum(top - other.top - other.size, other.top - top - size)
        free &= np.maximum(across, along) >= GAP
    if others and relation:
        first = others[0]
        right, down = first.left - left + (first.size - size) / 2, first.top - top + (first.size - size) / 2
        free &= holds(relation, right, down, slope=1.5)
    return [(int(steps[x]), int(steps[y])) for x, y in np.argwhere(free)]


def holds(relation: str, right: Any, down: Any, slope: float = 1.0) -> Any:
    """Return whether something that lies `right` and `down` of another is "left of", "above" ... it.

    The offset along the axis of the relation must be more than `slope` times the offset across. Offsets are numbers or
    arrays.
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
