"""Distil the scenes world's model to a few steps without guidance, as the emoji world's is distilled.

    python -m nulltta.embedded.scenes.train.turbo

The teacher's steps are of second order here: eight of them follow the trajectory of many small steps more closely than
eight of DDIM's do, and the layout of a scene is decided on the way.
"""

from __future__ import annotations

import random
from pathlib import Path

from ...train.turbo import Teacher, main
from .. import WEIGHTS
from ..grammar import caption, sample
from ..prompts import tuning_prompts


def _caption(rng: random.Random) -> str:
    stated, _ = sample(rng)
    return caption(stated)


SCENES = Teacher(WEIGHTS, _caption, tuple(tuning_prompts(12)), captions=2304, steps=800, order=2, rank=32)
"""The scenes world's model."""

if __name__ == "__main__":
    main(SCENES, Path("build/turbo-scenes"))
