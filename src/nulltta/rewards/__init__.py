"""`load`: from a name, an expression or a callable to a `Reward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from nulltta.rewards.closed_form import brightness, colourfulness
from nulltta.rewards.compose import Custom, WeightedSum
from nulltta.rewards.expression import parse
from nulltta.types import NullTTAError, Reward


def _scorer(name: str) -> Callable[[], Reward]:
    def build() -> Reward:
        from nulltta.world.scorers import load_scorer

        scorer: Reward = load_scorer(name)
        return scorer

    return build


REWARDS: Mapping[str, Callable[[], Reward]] = {
    "clip": _scorer("clip"),
    "clip-b": _scorer("clip-b"),
    "colourfulness": lambda: Custom(colourfulness, "colourfulness"),
    "brightness": lambda: Custom(brightness, "brightness"),
}

ABOUT: Mapping[str, str] = {
    "clip": "the embedded world's image-text score: cosine of image and prompt",
    "clip-b": "a second one, trained apart: keep it for checking what `clip` was raised to",
    "colourfulness": "Hasler and Süsstrunk's M3",
    "brightness": "the mean pixel",
}


def load(reward: str | Reward | Callable[[Tensor, Sequence[str]], Tensor] | Any) -> Reward:
    """A reward by name ("clip"), by expression ("0.7*clip + 0.3*colourfulness"), or your own callable
    (images (B, 3, H, W) in [0, 1], prompts) -> (B,).

    Raises:
        NullTTAError: unknown name (the known ones are listed), a malformed expression, or not a callable.
    """
    if isinstance(reward, str):
        terms = parse(reward)
        if len(terms) == 1 and terms[0][0] == 1.0:
            return _by_name(terms[0][1])
        return WeightedSum([(weight, _by_name(name)) for weight, name in terms])
    if isinstance(reward, Reward):
        return reward
    if callable(reward):
        return Custom(reward, getattr(reward, "__name__", type(reward).__name__))
    raise NullTTAError(f"a {type(reward).__name__} is no reward: give a name, an expression or a callable")


def _by_name(name: str) -> Reward:
    if name not in REWARDS:
        near = get_close_matches(name, REWARDS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise NullTTAError(f"unknown reward '{name}': {hint}known are {', '.join(REWARDS)}")
    return REWARDS[name]()
