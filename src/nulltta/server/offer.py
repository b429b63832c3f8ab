"""The rewards that clients may name. They are loaded before the server listens, and no request can add one: a name
with a source would read files or import code of the client's choice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch

from nulltta import rewards
from nulltta.errors import NullTTAError
from nulltta.rewards.expression import Name, Node, Standard, Sum, parse
from nulltta.types import Reward

LONGEST = 500  # characters of an expression
_COLOUR = Name("target-colour")  # what follows its colon is a colour, no source
_RGB = re.compile("#[0-9a-fA-F]{6}")


class Offer:
    """Rewards by name, as `nulltta.rewards.load` takes them; without names, all that need no download.

    Raises:
        NullTTAError: one of them is no name alone, or does not load.
    """

    def __init__(self, names: Sequence[str], max_terms: int, device: torch.device | str | None = None) -> None:
        names = names or [name for name, entry in rewards.REWARDS.items() if not entry.files]
        self.names, self.max_terms, self.device = tuple(dict.fromkeys(names)), max_terms, device
        nodes = [parse(name) for name in self.names]
        for node, text in zip(nodes, self.names, strict=True):
            if not isinstance(node, Name):
                raise NullTTAError(f"'{text}' is a sum: offer its parts, and clients weigh them themselves")
        self._offered = dict.fromkeys(nodes)
        self._loaded = {node: rewards.load(str(node), device=device) for node in nodes if node != _COLOUR}

    def check(self, expression: str) -> None:
        """Refuse an expression that is malformed, too long, or asks for more than what is offered.

        Raises:
            NullTTAError: says which.
        """
        if len(expression) > LONGEST:
            raise NullTTAError(f"a reward of {len(expression)} characters is too long: {LONGEST} at most")
        names = list(_names(parse(expression)))
        if len(names) > self.max_terms:
            raise NullTTAError(f"a sum of {len(names)} rewards is too long: {self.max_terms} at most")
        for name in names:
            if name not in self._loaded and not self._is_colour(name):
                known = ", ".join(
                    f"{offered}:#RRGGBB" if offered == _COLOUR.word else offered for offered in self.names
                )
                raise NullTTAError(f"reward '{name}' is not offered here: choose among {known}")

    def __call__(self, expression: str) -> Reward:
        """The reward of a checked expression."""
        return rewards.build(parse(expression), self._named)

    def _named(self, name: Name) -> Reward:
        return self._loaded[name] if name in self._loaded else rewards.load(str(name), device=self.device)

    def _is_colour(self, name: Name) -> bool:
        is_colour = name.word == _COLOUR.word and _RGB.fullmatch(name.argument or "") is not None
        return is_colour and _COLOUR in self._offered


def _names(node: Node) -> Iterator[Name]:
    match node:
        case Name():
            yield node
        case Sum(terms):
            for _, part in terms:
                yield from _names(part)
        case Standard(part, mean, _):
            if mean is None:
                raise NullTTAError("z(reward) samples plain pictures to measure by: give z(reward, mean, deviation)")
            yield from _names(part)
