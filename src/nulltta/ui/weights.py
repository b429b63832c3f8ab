"""A reward expression and the sliders of its weights: two views of one text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nulltta.errors import InvalidValue, NullTTAError
from nulltta.rewards import REWARDS
from nulltta.rewards.expression import Node, Sum, is_colour, names, parse, parse_foreign, written

MOST = 6  # sliders; what an expression has beyond them is weighed in its text


@dataclass(frozen=True, slots=True)
class Slider:
    """One term's weight, and what it may be moved to, in steps of."""

    label: str
    weight: float
    low: float
    high: float
    step: float


def sliders(expression: str) -> list[Slider]:
    """One a term of a sum; none for a single reward, whose weight is `reward_weight`, or for what does not parse."""
    try:
        terms = _terms(parse(expression))
    except NullTTAError:
        return []
    return [_slider(weight, part) for weight, part in terms[:MOST]]


def weighed(expression: str, weights: Sequence[float]) -> str:
    """The expression with the weights of its first terms replaced."""
    terms = _terms(parse(expression))
    weights = [*weights[: len(terms)], *(weight for weight, _ in terms[len(weights) :])]
    return written(Sum(tuple((weight, part) for weight, (_, part) in zip(weights, terms, strict=True))))


def with_term(expression: str, name: str, weight: float = 0.3) -> str:
    """The expression, and a reward added to it; that reward alone where there is none yet."""
    return f"{expression} + {weight:g}*{name}" if expression.strip() else name


def require_offered(expression: str, own: str) -> None:
    """Refuse what a page must not ask for: a reward with a source reads files or imports code of the asker's choice.

    own: the expression of whoever started the page, who may name what they like.

    Raises:
        NullTTAError: a name in it is not offered, or it is malformed or too long.
    """
    theirs = set(names(parse(own)))
    for name in names(parse_foreign(expression)):
        if name.argument is not None and not is_colour(name) and name not in theirs:
            raise InvalidValue(f"reward '{name}' is not offered here: give it to `nulltta ui --reward`")
        if name.word not in REWARDS and name not in theirs:
            raise InvalidValue(f"unknown reward '{name}': known are {', '.join(REWARDS)}")


def _terms(node: Node) -> tuple[tuple[float, Node], ...]:
    return node.terms if isinstance(node, Sum) else ()


def _slider(weight: float, part: Node) -> Slider:
    high = max(1.0, 2 * abs(weight))
    step = 10.0 ** (math.floor(math.log10(high)) - 2)
    return Slider(written(part), weight, -high if weight < 0 else 0.0, high, step)
