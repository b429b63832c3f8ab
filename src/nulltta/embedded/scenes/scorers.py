"""The scorers of the scenes world: `scenes-clip`, the usual target, and two that the target shares nothing with.

`scenes-conv` is contrastive and convolutional; `scenes-questions` is a patch transformer trained to answer questions.
"""

from __future__ import annotations

from pathlib import Path

import torch

from nulltta.contracts import Reward
from nulltta.quiet import quiet_libraries

from ..networks import restore
from ..scorers import contrastive, weights_of
from .networks import Answerer, ConvPair
from .questions import QuestionScorer

TARGET = "scenes-clip"
HELD_OUT = ("scenes-conv", "scenes-questions")
NAMES = (TARGET, *HELD_OUT)


@quiet_libraries()
def load_scorer(
    name: str, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Reward:
    """Load a scorer of the scenes world.

    Args:
        name: one of NAMES.
        folder: what the export wrote, with a folder per scorer.
        device: where to put it.
        dtype: the parameters' data type.

    Raises:
        InvalidValue: if there is no such scorer.
        LoadError: if its weights are missing.
    """
    place = weights_of(name, NAMES, folder, "make world WORLD=scenes")
    if name == "scenes-questions":
        return QuestionScorer(name, restore(Answerer, place).to(device=device, dtype=dtype))
    return contrastive(name, place, None if name == TARGET else ConvPair, device, dtype)
