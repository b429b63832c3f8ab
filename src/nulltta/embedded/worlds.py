"""The embedded worlds by the names of their models: where the weights are, which scorers they have, and who judges.

Torch is imported only with the parts that need it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nulltta.errors import LoadError

from . import WEIGHTS, grammar, scenes
from .scenes import grammar as scenes_grammar
from .scenes import prompts as scenes_prompts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nulltta.contracts import Reward


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
        scorers: what each scorer measures, by name: the one that is usually optimised, then the held-out ones.
        load_scorer: loads a scorer by its name, from a folder of weights, to a device and a data type.
        load_judge: loads the judge.
        test_prompts: n -> n prompts to report on.
        renders: (prompt, n) -> n true pictures of what a prompt states, (n, 3, H, W) in [0, 1].
        kind: prompt -> the kind that it is of, such as "count".
        draws: all that the model draws, with an example of a prompt.
        unknown_words: prompt -> the words in it that the model never saw.
        distilled: a folder with a LoRA that distils the pipeline to few steps, and its scheduler; None for none.
        distil: the command that trains it.
        null_text: a null text that was fitted to the model, for all prompts; None for none.
        tuning_prompts: n -> n prompts of all kinds to choose settings on, none of which is a test prompt.
    """

    weights: Path
    train: str
    scorers: Mapping[str, str]
    load_scorer: Callable[[str, Path, torch.device | str, torch.dtype], Reward]
    load_judge: Callable[[], FactJudge]
    test_prompts: Callable[[int], list[str]]
    tuning_prompts: Callable[[int], list[str]]
    renders: Callable[[str, int], Tensor]
    kind: Callable[[str], str]
    draws: str
    unknown_words: Callable[[str], list[str]]
    distilled: Path | None = None
    distil: str = ""
    null_text: Path | None = None

    @property
    def target(self) -> str:
        """The scorer that is usually optimised."""
        return next(iter(self.scorers))

    @property
    def held_out(self) -> tuple[str, ...]:
        """The scorers that are not meant to be optimised."""
        return tuple(self.scorers)[1:]

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


def _emoji_renders(prompt: str, count: int) -> Tensor:
    from .render import render_batch, to_unit

    facts, rng = grammar.parse(prompt), random.Random(prompt)
    return to_unit(render_batch([grammar.completed(facts, rng) for _ in range(count)], rng))


def _scenes_renders(prompt: str, count: int) -> Tensor:
    from .render import to_unit
    from .scenes.render import render

    claim, rng = scenes_grammar.parse(prompt), random.Random(prompt)
    return to_unit(render([scenes_grammar.coloured(claim, rng) for _ in range(count)], rng))


def _distilled(world: World, module: str) -> World:
    return replace(world, distilled=world.weights / "turbo", distil=f"python -m {module}", null_text=None)


EMOJI = World(
    weights=WEIGHTS,
    train="make world",
    scorers={
        "clip": "the embedded world's image-text score: cosine of image and prompt",
        "clip-b": "a second one, trained separately: keep it for checking what `clip` was raised to",
    },
    load_scorer=_emoji_scorer,
    load_judge=_emoji_judge,
    test_prompts=grammar.test_prompts,
    tuning_prompts=grammar.tuning_prompts,
    renders=_emoji_renders,
    kind=grammar.kind,
    null_text=WEIGHTS / "null_text.safetensors",
    draws="emoji on plain backgrounds, as in 'a fox on a blue background, noto style'",
    unknown_words=grammar.unknown_words,
)
SCENES = World(
    weights=scenes.WEIGHTS,
    train="make world WORLD=scenes",
    scorers={
        "scenes-clip": "the scenes world's image-text score: cosine of image and prompt",
        "scenes-conv": "a convolutional one, trained apart: keep it for checking",
        "scenes-questions": "mean log-probability of the answers that a prompt implies: keep it for checking",
    },
    load_scorer=_scenes_scorer,
    load_judge=_scenes_judge,
    test_prompts=scenes_prompts.test_prompts,
    tuning_prompts=scenes_prompts.tuning_prompts,
    renders=_scenes_renders,
    kind=lambda prompt: scenes_grammar.parse(prompt).category,
    draws=f"plain shapes only, as in {scenes_grammar.EXAMPLES}",
    unknown_words=scenes_grammar.unknown_words,
)
WORLDS: Mapping[str, World] = {
    "embedded": EMOJI,
    "embedded-turbo": _distilled(EMOJI, "nulltta.embedded.train.turbo"),
    "scenes": SCENES,
    "scenes-turbo": _distilled(SCENES, "nulltta.embedded.scenes.train.turbo"),
}
"""The worlds by the names of their models."""


def draws_emoji(model: str) -> bool:
    """Return whether a model, by its name, is of the emoji world."""
    return model in WORLDS and WORLDS[model].weights == EMOJI.weights


def foreign_scorers(model: str) -> set[str]:
    """Return the scorers of worlds that know nothing of what a model, by its name, draws."""
    own = WORLDS[model].scorers if model in WORLDS else {}
    return {name for world in WORLDS.values() for name in world.scorers} - set(own)


def world_of(scorer: str) -> World:
    """Return the world that a scorer belongs to."""
    return next(world for world in WORLDS.values() if scorer in world.scorers)
