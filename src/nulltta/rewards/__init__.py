"""`load`: from a name, an expression or a callable to a `Reward`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue
from nulltta.rewards import user
from nulltta.rewards.catalogue import REWARDS, Request, catalogue
from nulltta.rewards.compose import Custom, Standardised, WeightedSum
from nulltta.rewards.expression import Name, Node, Standard, Sum, parse

__all__ = ["ABOUT", "REWARDS", "build", "catalogue", "load"]

ABOUT = {name: entry.summary for name, entry in REWARDS.items()}


def load(
    reward: str | Reward | Callable[[Tensor, Sequence[str]], Tensor] | Any,
    source: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    sha256: str | None = None,
) -> Reward:
    """A reward by name, by expression, or your own callable (images (B, 3, H, W) in [0, 1], prompts) -> (B,).

    Args:
        reward: "pickscore"; "0.7*pickscore + 0.3*(aesthetic - jpeg)"; "z(pickscore, 0.21, 0.01) + z(aesthetic)";
            "clipscore:org/model" (a name and its source); "package.module:function" (your own); or a callable.
        source: of one name: a hub id, a directory or a file, instead of the usual hub id.
        device: of the towers; default: the GPU if there is one.
        dtype: of the towers; default: float32, on a GPU bfloat16 for vqascore. Scores are float32 whatever it is.
        sha256: what the weights file must hash to.

    Raises:
        NullTTAError: unknown name (the known ones are listed), a malformed expression, a file that is missing, cut
            short or another, or not a callable.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if isinstance(reward, str):
        node = parse(reward)
        if isinstance(node, Name):
            return _named(node, source, place, dtype, sha256)
        if source is not None or sha256 is not None:
            raise InvalidValue(f"'{reward}' has several parts: give each its source in it, as in clipscore:org/model")
        return build(node, lambda name: _named(name, None, place, dtype, None))
    if source is not None:
        raise InvalidValue("a source belongs to a reward given by name")
    if isinstance(reward, Reward):
        return reward
    if callable(reward):
        return Custom(reward, getattr(reward, "__name__", type(reward).__name__))
    raise InvalidValue(f"a {type(reward).__name__} is no reward: give a name, an expression or a callable")


def build(node: Node, named: Callable[[Name], Reward]) -> Reward:
    """The reward of a parsed expression; named: the reward of a name in it."""
    match node:
        case Name():
            return named(node)
        case Sum(terms):
            return WeightedSum([(weight, build(part, named)) for weight, part in terms])
        case Standard(part, mean, deviation):
            return Standardised(build(part, named), mean, deviation)


def _named(
    node: Name, source: str | Path | None, device: torch.device, dtype: torch.dtype | None, sha256: str | None
) -> Reward:
    if node.word in REWARDS:
        entry = REWARDS[node.word]
        made = entry.make(Request(node.word, source or node.argument, device, dtype or entry.dtype(device), sha256))
        if node.argument is not None:
            made.name = str(node)  # of two sources, two names: scores are reported by name
        return made
    if node.argument is not None:
        return user.load(node.word, node.argument)
    near = get_close_matches(node.word, REWARDS, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise InvalidValue(f"unknown reward '{node.word}': {hint}known are {', '.join(REWARDS)}")
