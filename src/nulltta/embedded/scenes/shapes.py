"""The drawings of the scenes world: outlines that take any colour, five of them geometric and five more pictorial.

Three outlines are silhouettes of emoji from the sprite sheets of the emoji world.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..sprites import sprite

SHAPES = ("circle", "star", "square", "heart", "triangle", "moon", "cross", "fish", "house", "crown")
"""Names of the shapes, the most frequent in training first."""
COLOURS = {
    "red": (214, 40, 40),
    "blue": (40, 90, 210),
    "green": (50, 160, 70),
    "yellow": (245, 212, 40),
    "purple": (140, 60, 180),
    "orange": (247, 140, 30),
    "black": (35, 35, 40),
}
"""RGB of the colours, the most frequent in training first."""
EMOJI = {"fish": ("tropical fish", "noto"), "house": ("house", "fluent"), "crown": ("crown", "fluent")}
"""The sprite and the sheet whose silhouette a shape is."""
OVERSAMPLING = 8

Mask = NDArray[np.float32]


@cache
def coverage(shape: str, size: int) -> Mask:
    """Return how much of each pixel a shape covers, (size, size) in [0, 1]. Callers share the array."""
    if shape in EMOJI:
        alpha = np.asarray(sprite(*EMOJI[shape], size))[..., 3]
        return (alpha / 255).astype(np.float32)
    n = size * OVERSAMPLING
    image = Image.new("L", (n, n))
    _draw(ImageDraw.Draw(image), shape, n)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32) / np.float32(255)


def _draw(pen: ImageDraw.ImageDraw, shape: str, n: int) -> None:
    """Draw a geometric shape in white on a canvas of n×n pixels."""
    last = n - 1
    if shape == "circle":
        pen.ellipse((0, 0, last, last), fill=255)
    elif shape == "square":
        pen.rectangle((0.04 * n, 0.04 * n, 0.96 * n, 0.96 * n), fill=255)
    elif shape == "triangle":
        pen.polygon([(n / 2, 0.03 * n), (last, 0.95 * n), (0, 0.95 * n)], fill=255)
    elif shape == "cross":
        pen.rectangle((0.33 * n, 0, 0.67 * n, last), fill=255)
        pen.rectangle((0, 0.33 * n, last, 0.67 * n), fill=255)
    elif shape == "moon":
        pen.ellipse((0, 0, last, last), fill=255)
        pen.ellipse((0.36 * n, -0.04 * n, 1.2 * n, 0.8 * n), fill=0)
    else:
        pen.polygon(_star(n) if shape == "star" else _heart(n), fill=255)


def _star(n: int) -> list[tuple[float, float]]:
    """Return the ten corners of a five-pointed star."""
    radii = [n / 2 if k % 2 == 0 else 0.2 * n for k in range(10)]
    angles = [k * math.pi / 5 for k in range(10)]
    return [(n / 2 + r * math.sin(a), 0.53 * n - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def _heart(n: int) -> list[tuple[float, float]]:
    """Return points along a heart curve."""
    points = []
    for t in np.linspace(0, 2 * math.pi, 200):
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((n / 2 + x / 34 * n, 0.46 * n - y / 34 * n))
    return points
