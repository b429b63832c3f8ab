"""Reward expressions such as "0.7*clip + 0.3*colourfulness": parsed by a small grammar, never evaluated.

sum    = ["-"] term (("+" | "-") term)*
term   = [number "*"] factor
factor = name | "(" sum ")" | "z" "(" sum ["," ["-"] number "," number] ")"
name   = word [":" argument], argument = anything in double quotes, or anything without spaces and ()+*,"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from nulltta.errors import InvalidValue

DEEPEST = 16
"""The deepest nesting of parentheses."""
LONGEST = 500
"""The longest untrusted expression, in characters."""
RGB = re.compile("#[0-9a-fA-F]{6}")
_BARE = re.compile(r'[^\s()+*,"]+')  # an argument that needs no quotes
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)
          |(?P<name>[a-z][\w.]*(?:-[a-z][\w.]*)*(?::(?:"[^"]*"|[^\s()+*,"]+))?)
          |(?P<sign>[-+*(),]))""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Name:
    """A reward's name and its argument, if it has one: "clip", "target-colour:#ff8800", "clipscore:org/model"."""

    word: str
    argument: str | None = None

    def __str__(self) -> str:
        """Return the name as it is written in an expression."""
        if self.argument is None:
            return self.word
        return f"{self.word}:{self.argument}" if _BARE.fullmatch(self.argument) else f'{self.word}:"{self.argument}"'


@dataclass(frozen=True, slots=True)
class Sum:
    """A weighted sum Σ weight·node."""

    terms: tuple[tuple[float, Node], ...]


@dataclass(frozen=True, slots=True)
class Standard:
    """A standardised reward (node − mean)/deviation; both are None if they are still to be measured."""

    node: Node
    mean: float | None = None
    deviation: float | None = None


Node: TypeAlias = Name | Sum | Standard


def parse(text: str) -> Node:
    """Parse an expression: "0.7*clip + 0.3*jpeg" -> Sum(((0.7, Name("clip")), (0.3, Name("jpeg")))).

    A hyphen between letters belongs to the name, so a minus needs spaces around it. A sum of one term of weight 1 is
    returned as that term.

    Raises:
        InvalidValue: if the expression is malformed; the message points at the place.
    """
    parser = _Parser(text, _tokens(text))
    node = parser.sum(depth=0)
    parser.expect("end")
    return node


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all nodes below it, from left to right."""
    yield node
    match node:
        case Standard(part):
            yield from walk(part)
        case Sum(terms):
            for _, part in terms:
                yield from walk(part)


def names(node: Node) -> list[Name]:
    """Return the names in an expression, from left to right."""
    return [part for part in walk(node) if isinstance(part, Name)]


def parse_untrusted(text: str) -> Node:
    """Parse an untrusted expression, which must not be long either.

    Raises:
        InvalidValue: if the expression is malformed or longer than `LONGEST`.
    """
    if len(text) > LONGEST:
        raise InvalidValue(f"a reward of {len(text)} characters is too long: {LONGEST} at most")
    return parse(text)


def is_colour(name: Name) -> bool:
    """Return whether a name is "target-colour:#RRGGBB", whose argument is not a source."""
    return name.word == "target-colour" and RGB.fullmatch(name.argument or "") is not None


def with_source(text: str, source: str | None) -> str:
    """Write a source into an expression: "clipscore", "org/model" -> "clipscore:org/model".

    Raises:
        InvalidValue: if the expression is more than one name, if the name has a source already, or if the source
            cannot be written into an expression.
    """
    if source is None:
        return text
    node = parse(text)
    if not isinstance(node, Name) or node.argument is not None:
        raise InvalidValue(
            f"a separate source is for a reward given by name, not for '{text}': "
            "write sources into an expression, as in 0.7*clipscore:org/model + 0.3*aesthetic"
        )
    if not source or '"' in source:
        raise InvalidValue(f"'{source}' is not a source: give a hub id, a directory or a file")
    return str(Name(node.word, source))


def written(node: Node) -> str:
    """Write a node as the expression that `parse` reads back, with weights to ten digits."""
    match node:
        case Name():
            return str(node)
        case Standard(part, None, _):
            return f"z({written(part)})"
        case Standard(part, mean, deviation):
            return f"z({written(part)}, {mean!r}, {deviation!r})"
        case Sum(terms):
            signed = [("-" if weight < 0 else "+", _term(abs(weight), part)) for weight, part in terms]
            first = signed[0][1] if signed[0][0] == "+" else f"-{signed[0][1]}"
            return " ".join([first, *(f"{sign} {term}" for sign, term in signed[1:])])


def _term(weight: float, part: Node) -> str:
    """Write a term of a sum whose sign has been written already."""
    text = f"({written(part)})" if isinstance(part, Sum) else written(part)
    return text if weight == 1 else f"{weight:.10g}*{text}"


class _Parser:
    """A recursive descent parser of tokens (kind, value, place)."""

    def __init__(self, text: str, tokens: list[tuple[str, str, int]]) -> None:
        self.text, self.tokens = text, tokens

    def sum(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise _malformed(self.text, self.tokens[0][2])
        terms = [self.term(-1.0 if self.skip("-") else 1.0, depth)]
        while (plus := self.skip("+")) or self.skip("-"):
            terms.append(self.term(1.0 if plus else -1.0, depth))
        return terms[0][1] if len(terms) == 1 and terms[0][0] == 1.0 else Sum(tuple(terms))

    def term(self, sign: float, depth: int) -> tuple[float, Node]:
        weight = sign
        if self.tokens[0][0] == "number":
            weight *= self.number()
            self.expect("sign", "*")
        return weight, self.factor(depth)

    def factor(self, depth: int) -> Node:
        if self.skip("("):
            node = self.sum(depth + 1)
            self.expect("sign", ")")
            return node
        value = self.expect("name")
        if value.lower() == "z" and self.skip("("):
            return self.standard(depth + 1)
        word, colon, argument = value.partition(":")
        return Name(word, argument.strip('"') if colon else None)

    def standard(self, depth: int) -> Node:
        node = self.sum(depth)
        if not self.skip(","):
            self.expect("sign", ")")
            return Standard(node)
        mean = -self.number() if self.skip("-") else self.number()
        self.expect("sign", ",")
        place = self.tokens[0][2]
        deviation = self.number()
        if deviation == 0:
            raise _malformed(self.text, place)
        self.expect("sign", ")")
        return Standard(node, mean, deviation)

    def number(self) -> float:
        return float(self.expect("number"))

    def skip(self, sign: str) -> bool:
        if self.tokens[0][:2] == ("sign", sign):
            self.tokens.pop(0)
            return True
        return False

    def expect(self, kind: str, value: str | None = None) -> str:
        token = self.tokens[0]
        if token[0] != kind or (value is not None and token[1] != value):
            raise _malformed(self.text, token[2])
        return self.tokens.pop(0)[1] if kind != "end" else ""


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Cut an expression into tokens (kind, value, place)."""
    tokens, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise _malformed(text, place + len(text[place:]) - len(text[place:].lstrip()))
        tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        place = match.end()
    return [*tokens, ("end", "", len(text))]


def _malformed(text: str, place: int) -> InvalidValue:
    """Make the error for a fault at a place of the text."""
    where = f"at '{text[place:].strip()}'" if text[place:].strip() else "at its end"
    return InvalidValue(f"reward '{text}' is malformed {where}: write it like '0.7*clip + 0.3*colourfulness'")
