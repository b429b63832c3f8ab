"""Distil the scenes world's model to a few steps without guidance, as the emoji world's is distilled.

    python -m nulltta.embedded.scenes.train.turbo

The teacher's steps are of second order here: eight of them follow the trajectory of many small steps more closely than
eight of DDIM's do. What a scene holds is decided at the noisiest level, for which a third of each batch is kept, and of
which a student that sees fewer captions learns those by heart. So one trajectory is run for each of many captions.
"""

from __future__ import annotations

import random
from pathlib import Path

from ...train.turbo import LEVELS, Teacher, main
from .. import WEIGHTS
from ..grammar import caption, sample
from ..prompts import tuning_prompts


def _caption(rng: random.Random) -> str:
    stated, _ = sample(rng)
    return caption(stated)


SCENES = Teacher(
    WEIGHTS,
    _caption,
    tuple(tuning_prompts(12)),
    captions=20160,
    steps=2000,
    order=2,
    starts=(LEVELS,),
    rank=32,
    noisiest=1 / 3,
)
"""The scenes world's model."""

if __name__ == "__main__":
    main(SCENES, Path("build/turbo-scenes"))
