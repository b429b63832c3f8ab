"""A reward expression and the sliders of its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nulltta.errors import NullTTAError
from nulltta.rewards.expression import Node, Sum, parse, written

MAX_SLIDERS = 6
"""The number of sliders; the weights of further terms can be changed in the text only."""


@dataclass(frozen=True, slots=True)
class WeightSlider:
    """The weight of one term, and the range and step of its slider."""

    label: str
    weight: float
    low: float
    high: float
    step: float


def sliders(expression: str) -> list[WeightSlider]:
    """Return one slider per term of a sum.

    A single reward has none, since its weight is `reward_weight`, and neither has an invalid expression.
    """
    try:
        terms = _terms(parse(expression))
    except NullTTAError:
        return []
    return [_slider(weight, part) for weight, part in terms[:MAX_SLIDERS]]


def weighed(expression: str, weights: Sequence[float]) -> str:
    """Return the expression with the weights of its first terms replaced."""
    terms = _terms(parse(expression))
    weights = [*weights[: len(terms)], *(weight for weight, _ in terms[len(weights) :])]
    return written(Sum(tuple((weight, part) for weight, (_, part) in zip(weights, terms, strict=True))))


def with_term(expression: str, name: str) -> str:
    """Return the expression with 0.3 times a reward added to it, or the reward if there is no expression yet."""
    return f"{expression} + 0.3*{name}" if expression.strip() else name


def _terms(node: Node) -> tuple[tuple[float, Node], ...]:
    return node.terms if isinstance(node, Sum) else ()


def _slider(weight: float, part: Node) -> WeightSlider:
    high = max(1.0, 2 * abs(weight))
    step = 10.0 ** (math.floor(math.log10(high)) - 2)
    return WeightSlider(written(part), weight, -high if weight < 0 else 0.0, high, step)
