"""Rewards: `load` turns a name, an expression or a callable into a `Reward`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.devices import usual_device
from nulltta.errors import InvalidValue
from nulltta.quiet import quiet_libraries
from nulltta.rewards.catalogue import REWARDS, catalogue
from nulltta.rewards.compose import Custom, Standardised, WeightedSum
from nulltta.rewards.expression import Name, Node, Standard, Sum, parse
from nulltta.rewards.import_path import import_reward
from nulltta.rewards.request import RewardRequest

__all__ = ["REWARDS", "build", "catalogue", "load"]


def load(
    reward: str | Reward | Callable[[Tensor, Sequence[str]], Tensor] | Any,
    source: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    sha256: str | None = None,
) -> Reward:
    """Load a reward by its name or by an expression, or wrap a callable.

    Args:
        reward: a name ("pickscore"), a name with its source ("clipscore:org/model"), an expression
            ("0.7*pickscore + 0.3*(aesthetic - jpeg)", "z(pickscore, 0.21, 0.01) + z(aesthetic)"), the import path of
            your own ("package.module:function"), a `Reward`, or a callable
            (images (B, 3, H, W) in [0, 1], prompts) -> scores (B,).
        source: for a single name, a hub id, a directory or a file to load instead of the usual hub id.
        device: where networks run; by default the GPU if there is one.
        dtype: the precision of networks; by default float32 on the CPU, and on a GPU half precision for large
            networks. Scores are float32 in either case.
        sha256: for a single name, the checksum that its weights file must have.

    Raises:
        InvalidValue: if the name is unknown, the expression is malformed, or the argument cannot be called.
        LoadError: if weights are missing, are truncated or do not match the reward.
    """
    where = torch.device(device or usual_device())
    if isinstance(reward, str):
        node = parse(reward)
        if isinstance(node, Name):
            return _named(node, source, where, dtype, sha256)
        if source is not None or sha256 is not None:
            raise InvalidValue(
                f"'{reward}' has several parts: write each one's source into the expression, as in clipscore:org/model"
            )
        return build(node, lambda name: _named(name, None, where, dtype, None))
    if source is not None:
        raise InvalidValue("a source can only be given for a reward by name")
    if isinstance(reward, Reward):
        return reward
    if callable(reward):
        return Custom(reward, getattr(reward, "__name__", type(reward).__name__))
    raise InvalidValue(f"a {type(reward).__name__} is not a reward: give a name, an expression or a callable")


def build(node: Node, named: Callable[[Name], Reward]) -> Reward:
    """Build the reward of a parsed expression.

    Args:
        node: the expression.
        named: returns the reward of a name in it.
    """
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
    """Load one name of an expression: a known reward, or an import path."""
    if node.word in REWARDS:
        known = REWARDS[node.word]
        request = RewardRequest(
            node.word, source or node.argument, device, dtype or known.default_dtype(device), sha256
        )
        with quiet_libraries() if known.is_network else nullcontext():
            reward = known.load(request)
        if node.argument is not None:
            reward.name = str(node)  # scores are reported by name, and two sources must not share one
        return reward
    if node.argument is not None:
        return import_reward(node.word, node.argument)
    near = get_close_matches(node.word, REWARDS, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise InvalidValue(f"unknown reward '{node.word}': {hint}known are {', '.join(REWARDS)}")
