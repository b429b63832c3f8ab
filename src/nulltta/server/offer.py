"""The rewards that clients may name. They are loaded before the server listens, and no request can add one: a name
with a source would read files or import code of the client's choice."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nulltta import rewards
from nulltta.contracts import Reward
from nulltta.errors import InvalidValue
from nulltta.rewards.expression import Name, Standard, is_colour, names, parse, parse_foreign, walk

_COLOUR = Name("target-colour")  # what follows its colon is a colour, no source


class Offer:
    """Rewards by name, as `nulltta.rewards.load` takes them; without names, all that need no download.

    Raises:
        NullTTAError: one of them is no name alone, or does not load.
    """

    def __init__(self, offered: Sequence[str], max_terms: int, device: torch.device | str | None = None) -> None:
        offered = offered or [name for name, entry in rewards.REWARDS.items() if not entry.files]
        self.names, self.max_terms, self.device = tuple(dict.fromkeys(offered)), max_terms, device
        nodes = [parse(name) for name in self.names]
        for node, text in zip(nodes, self.names, strict=True):
            if not isinstance(node, Name):
                raise InvalidValue(f"'{text}' is a sum: offer its parts, and clients weigh them themselves")
        self._offered = dict.fromkeys(nodes)
        self._loaded = {node: rewards.load(str(node), device=device) for node in nodes if node != _COLOUR}

    def check(self, expression: str) -> None:
        """Refuse an expression that is malformed, too long, or asks for more than what is offered.

        Raises:
            NullTTAError: says which.
        """
        node = parse_foreign(expression)
        if any(isinstance(part, Standard) and part.mean is None for part in walk(node)):
            raise InvalidValue("z(reward) samples plain pictures to measure by: give z(reward, mean, deviation)")
        if (terms := len(names(node))) > self.max_terms:
            raise InvalidValue(f"a sum of {terms} rewards is too long: {self.max_terms} at most")
        for name in names(node):
            if name not in self._loaded and not (is_colour(name) and _COLOUR in self._offered):
                known = ", ".join(f"{each}:#RRGGBB" if each == _COLOUR.word else each for each in self.names)
                raise InvalidValue(f"reward '{name}' is not offered here: choose among {known}")

    def __call__(self, expression: str) -> Reward:
        """The reward of a checked expression."""
        return rewards.build(parse(expression), self._named)

    def _named(self, name: Name) -> Reward:
        return self._loaded[name] if name in self._loaded else rewards.load(str(name), device=self.device)
