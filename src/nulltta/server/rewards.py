"""The rewards that clients may use. All of them are loaded before the server listens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nulltta import rewards
from nulltta.contracts import Reward
from nulltta.embedded.worlds import foreign_scorers
from nulltta.errors import InvalidValue
from nulltta.rewards.allowed import COLOUR, parse_allowed
from nulltta.rewards.catalogue import catalogue
from nulltta.rewards.expression import Name, Standard, names, parse, walk


def without_a_download(model: str) -> list[str]:
    """Return the rewards that know a model's pictures and are on this machine without a download.

    Those of an embedded model's world come first, and first of them its target.
    """
    foreign = foreign_scorers(model)
    return [row.name for row in catalogue() if row.present and not row.source and row.name not in foreign]


class LoadedRewards:
    """Rewards by name, loaded once, from which expressions are composed.

    Args:
        offered: names as `nulltta.rewards.load` takes them.
        max_terms: the largest number of rewards in one expression.
        device: where they are loaded.

    Attributes:
        names: the offered names, without repetition; the first is the default.

    Raises:
        InvalidValue: if one of them is unknown or is not a single name.
        LoadError: if one of them does not load.
    """

    def __init__(self, offered: Sequence[str], max_terms: int, device: torch.device | str | None = None) -> None:
        self.names, self.max_terms, self.device = tuple(dict.fromkeys(offered)), max_terms, device
        self._allowed: list[Name] = []
        for text in self.names:
            if not isinstance(node := parse(text), Name):
                raise InvalidValue(
                    f"'{text}' is a sum: offer its parts, which clients can combine themselves", "reward"
                )
            self._allowed.append(node)
        self._loaded = {name: rewards.load(str(name), device=device) for name in self._allowed if name != COLOUR}

    def check(self, expression: str) -> None:
        """Check a client's reward expression.

        Raises:
            InvalidValue: if it is malformed, is too long, or asks for a reward that is not offered.
        """
        node = parse_allowed(expression, self._allowed)
        if any(isinstance(part, Standard) and part.mean is None for part in walk(node)):
            raise InvalidValue(
                "z(reward) would have to sample plain images to measure the mean and the standard deviation: give "
                "them, as in z(reward, 0.2, 0.1)"
            )
        if (terms := len(names(node))) > self.max_terms:
            raise InvalidValue(f"a sum of {terms} rewards is too long: {self.max_terms} at most")

    def build(self, expression: str) -> Reward:
        """Return the reward of an expression that was checked."""
        return rewards.build(parse(expression), self._by_name)

    def _by_name(self, name: Name) -> Reward:
        """Return a loaded reward, or make a "target-colour:#RRGGBB", which needs no loading."""
        return self._loaded[name] if name in self._loaded else rewards.load(str(name), device=self.device)
