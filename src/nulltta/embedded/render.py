"""Drawing scenes: sprites pasted on a flat background, with a little variation of place, size and shade."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .grammar import BACKGROUNDS, Scene
from .sprites import sprite

PIXELS = 64
# count -> smallest side, largest side and the x of each centre, all in 64ths of the image's side
LAYOUT: dict[int, tuple[int, int, tuple[int, ...]]] = {
    1: (43, 52, (32,)),
    2: (26, 30, (17, 47)),
    3: (18, 21, (11, 32, 53)),
}


def render(scene: Scene, rng: random.Random) -> Tensor:
    """Draw a scene: (3, 64, 64) uint8. Sizes, places and the background's shade are drawn from `rng`."""
    shade = tuple(min(255, max(0, value + rng.randint(-7, 7))) for value in BACKGROUNDS[scene.background])
    canvas = Image.new("RGB", (PIXELS, PIXELS), shade)
    smallest, largest, centres = LAYOUT[scene.count]
    side = round(rng.uniform(smallest, largest))
    wide = 2.0 if scene.count == 1 else 1.0
    names = scene.objects if len(scene.objects) > 1 else scene.objects * scene.count
    for name, centre in zip(names, centres, strict=True):
        picture = sprite(name, scene.style, side)
        x = centre + rng.uniform(-wide, wide) - side / 2
        y = 32 + rng.uniform(-2, 2) - side / 2
        canvas.paste(picture, (round(x), round(y)), picture)
    return torch.from_numpy(np.asarray(canvas).copy()).permute(2, 0, 1)


def render_batch(scenes: Sequence[Scene], rng: random.Random) -> Tensor:
    """Draw B scenes: (B, 3, 64, 64) uint8."""
    return torch.stack([render(scene, rng) for scene in scenes])


def to_unit(images: Tensor) -> Tensor:
    """Convert uint8 pixels to float in [0, 1]."""
    return images.float() / 255
