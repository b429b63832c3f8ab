"""The embedded worlds by the names of their models: where the weights are, which scorers they have, and who judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.errors import LoadError

from . import WEIGHTS, scenes


class FactJudge(Protocol):
    """Checks the facts that prompts state."""

    def facts(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the share of each prompt's facts that its image shows (B,).

        Raises:
            InvalidValue: if a prompt is outside the grammar.
        """


@dataclass(frozen=True, slots=True)
class World:
    """A model of our own with its scorers and its judge.

    Attributes:
        weights: the folder of the weights: `sd`, the pipeline, and a folder per scorer.
        train: the command that trains them.
        target: the scorer that is usually optimised.
        held_out: the scorers that are not meant to be optimised.
        load_scorer: loads a scorer by its name, from a folder of weights, to a device and a data type.
        load_judge: loads the judge.
    """

    weights: Path
    train: str
    target: str
    held_out: tuple[str, ...]
    load_scorer: Callable[[str, Path, torch.device | str, torch.dtype], Reward]
    load_judge: Callable[[], FactJudge]

    def pipeline(self) -> Path:
        """Return the folder of the pipeline.

        Raises:
            LoadError: if it was not trained on this machine and does not ship.
        """
        if not (self.weights / "sd" / "model_index.json").is_file():
            raise LoadError(f"there are no weights in {self.weights}: `{self.train}` trains them")
        return self.weights / "sd"


def _emoji_scorer(name: str, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Reward:
    from .scorers import load_scorer

    return load_scorer(name, device, dtype, folder)


def _scenes_scorer(name: str, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Reward:
    from .scenes.scorers import load_scorer

    return load_scorer(name, folder, device, dtype)


def _emoji_judge() -> FactJudge:
    from .judge import load_judge

    return load_judge()


def _scenes_judge() -> FactJudge:
    from .scenes.judge import SceneJudge

    return SceneJudge()


WORLDS: Mapping[str, World] = {
    "embedded": World(WEIGHTS, "make world", "clip", ("clip-b",), _emoji_scorer, _emoji_judge),
    "scenes": World(
        scenes.WEIGHTS, "make world WORLD=scenes", "scenes-clip", ("scenes-conv", "scenes-questions"),
        _scenes_scorer, _scenes_judge,
    ),
}  # fmt: skip


def world_of(scorer: str) -> World:
    """Return the world that a scorer belongs to."""
    return next(world for world in WORLDS.values() if scorer in (world.target, *world.held_out))
