"""Reward expressions, parsed by a small grammar and never evaluated.

sum = ["-"] term (("+" | "-") term)*, term = [number "*"] name
"""

from __future__ import annotations

import re

from nulltta.errors import NullTTAError

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)
          |(?P<name>[a-z][\w.]*(?:-[a-z]\w*)*)
          |(?P<sign>[-+*]))""",
    re.IGNORECASE | re.VERBOSE,
)


def parse(text: str) -> list[tuple[float, str]]:
    """Weights and names: "0.7*clip + 0.3*colourfulness" -> [(0.7, "clip"), (0.3, "colourfulness")].

    A hyphen between letters belongs to the name: write spaces around a minus.

    Raises:
        NullTTAError: the expression is malformed; the message points at the place.
    """
    tokens = _tokens(text)
    terms: list[tuple[float, str]] = []
    sign = 1.0
    if tokens[0][1] == "-":
        tokens.pop(0)
        sign = -1.0
    while True:
        weight = 1.0
        kind, value, place = tokens.pop(0)
        if kind == "number":
            weight = float(value)
            _expect(text, tokens.pop(0), "sign", "*")
            kind, value, place = tokens.pop(0)
        _expect(text, (kind, value, place), "name")
        terms.append((sign * weight, value))
        kind, value, place = tokens.pop(0)
        if kind == "end":
            return terms
        if value not in ("+", "-"):
            _expect(text, (kind, value, place), "sign", "+")
        sign = 1.0 if value == "+" else -1.0


def _tokens(text: str) -> list[tuple[str, str, int]]:
    tokens, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise _malformed(text, place + len(text[place:]) - len(text[place:].lstrip()))
        tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        place = match.end()
    return [*tokens, ("end", "", len(text))]


def _expect(text: str, token: tuple[str, str, int], kind: str, value: str | None = None) -> None:
    if token[0] != kind or (value is not None and token[1] != value):
        raise _malformed(text, token[2])


def _malformed(text: str, place: int) -> NullTTAError:
    where = f"at '{text[place:].strip()}'" if text[place:].strip() else "at its end"
    return NullTTAError(f"reward '{text}' is malformed {where}: write it like '0.7*clip + 0.3*colourfulness'")
