"""The scorers of the scenes world: `scenes-clip`, the usual target, and two that the target shares nothing with.

`scenes-conv` is contrastive and convolutional; `scenes-questions` is a patch transformer trained to answer questions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue, LoadError
from nulltta.quiet import quiet_libraries

from ..networks import restore
from ..scorers import Scorer
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
    if name not in NAMES:
        raise InvalidValue(f"must be one of {', '.join(NAMES)}, not {name!r}", field="name")
    place = folder / name
    if not (place / "model.safetensors").exists():
        raise LoadError(f"the weights of {name} are missing from {folder}: `make world WORLD=scenes` trains them")
    if name == "scenes-questions":
        return QuestionScorer(name, restore(Answerer, place).to(device=device, dtype=dtype))
    from transformers import CLIPModel, CLIPTokenizer

    model: Any = CLIPModel.from_pretrained(place, dtype=dtype) if name == TARGET else restore(ConvPair, place)
    return Scorer(name, model.to(device=device, dtype=dtype), CLIPTokenizer.from_pretrained(place))
