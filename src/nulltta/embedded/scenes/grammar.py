"""The language of the scenes world: what a prompt asks for, and which scenes the model is trained on.

    a star                             one
    a heart and a moon                 two
    three green circles                count
    a red square and a blue star       colours
    a fish above a crown               position
    two red stars and three blue fish  binding

These are the categories of GenEval (arXiv 2310.11513). Shapes, colours and numbers are drawn by Zipf's law, so that
some prompts are easy and others hard; some combinations are never drawn in training, which a stable hash decides.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from nulltta.errors import InvalidValue

from .shapes import COLOURS, SHAPES

T = TypeVar("T")

CATEGORIES = ("one", "two", "count", "colours", "position", "binding")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = ("a", "two", "three", "four", "five")
PAIRS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (2, 3), (3, 2))
"""Numbers of the two groups of a "binding" prompt, the most frequent first."""
PLURALS = {"cross": "crosses", "fish": "fish"}
HELD_OUT_SHARE = 0.12
WRONG_SHARE = 0.2
EXAMPLES = "'a red star above a heart' or 'two red stars and three blue circles'"


@dataclass(frozen=True, slots=True)
class Group:
    """Things of one kind.

    Attributes:
        number: how many, 1 to 5.
        shape: one of SHAPES.
        colour: one of COLOURS; None where the prompt does not say.
    """

    number: int
    shape: str
    colour: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a prompt states: one group or two of different shapes, and where the first lies as seen from the second.

    Attributes:
        groups: all the things in the scene.
        relation: one of RELATIONS, between two single things; None where the prompt does not say.
    """

    groups: tuple[Group, ...]
    relation: str | None = None

    @property
    def number(self) -> int:
        """The number of things."""
        return sum(group.number for group in self.groups)

    @property
    def category(self) -> str:
        """One of CATEGORIES."""
        if self.relation:
            return "position"
        if len(self.groups) == 1:
            return "one" if self.number == 1 else "count"
        if self.number > 2:
            return "binding"
        return "colours" if any(group.colour for group in self.groups) else "two"


def caption(claim: Claim) -> str:
    """Return the claim in English; `parse` reads it back."""
    return f" {claim.relation or 'and'} ".join(_phrase(group) for group in claim.groups)


def _phrase(group: Group) -> str:
    """Describe a group: "two red stars"."""
    noun = group.shape if group.number == 1 else _plural(group.shape)
    described = f"{group.colour} {noun}" if group.colour else noun
    number = "an" if group.number == 1 and described[0] in "aeiou" else NUMBERS[group.number - 1]
    return f"{number} {described}"


def _plural(shape: str) -> str:
    """Return the name of several things of a shape."""
    return PLURALS.get(shape, f"{shape}s")


def words() -> tuple[str, ...]:
    """Return every word that a caption can hold, sorted: the whole words of the tokenizer."""
    forms = [form for shape in SHAPES for form in (shape, _plural(shape))]
    return tuple(sorted({*" ".join(RELATIONS).split(), *NUMBERS, "an", "one", "and", "of", *COLOURS, *forms}))


def unknown_words(text: str) -> list[str]:
    """Return the words of a text that no prompt of this world contains, in lower case, each once."""
    known = {"to", "the", *words()}
    return [word for word in dict.fromkeys(re.findall(r"\w+", text.lower())) if word not in known]


def parse(prompt: str) -> Claim:
    """Return what a prompt states.

    Raises:
        InvalidValue: if the prompt is outside the grammar, or asks for more than five things.
    """
    text = " ".join(prompt.lower().strip(" .\n\t").split()).replace(" to the ", " ")
    joint = next((word for word in ("and", *RELATIONS) if f" {word} " in text), None)
    parts = text.split(f" {joint} ") if joint else [text]
    groups = [_parse_group(part) for part in parts]
    relation = joint if joint in RELATIONS else None
    found = [group for group in groups if group is not None]
    claim = Claim(tuple(found), relation)
    if len(found) != len(parts) or not fits(claim):
        raise InvalidValue(f"'{prompt}' is not a prompt of the scenes world, which reads like {EXAMPLES}")
    return claim


def _parse_group(text: str) -> Group | None:
    """Read "two red stars"; None if the text is not such a phrase."""
    number, *rest = text.split() or [""]
    number = "a" if number in ("an", "one") else number
    if number not in NUMBERS or not 1 <= len(rest) <= 2:
        return None
    count, colour = NUMBERS.index(number) + 1, rest[0] if len(rest) == 2 else None
    singular = {shape if count == 1 else _plural(shape): shape for shape in SHAPES}
    if rest[-1] not in singular or (colour and colour not in COLOURS):
        return None
    return Group(count, singular[rest[-1]], colour)


def fits(claim: Claim) -> bool:
    """Return whether a claim is one that the grammar makes."""
    shapes = {group.shape for group in claim.groups}
    related = claim.relation is None or (len(claim.groups) == 2 and claim.number == 2)
    return len(claim.groups) in (1, 2) and len(shapes) == len(claim.groups) and claim.number <= 5 and related


def zipf(rng: random.Random, items: Sequence[T], exponent: float = 1.0) -> T:
    """Draw one item; the k-th has a weight of k^-exponent."""
    return rng.choices(items, [(k + 1) ** -exponent for k in range(len(items))])[0]


def draw(rng: random.Random, category: str | None = None) -> Claim:
    """Draw a claim of a category, or of any."""
    category = category or rng.choice(CATEGORIES)
    first = zipf(rng, SHAPES)
    second = zipf(rng, [shape for shape in SHAPES if shape != first])
    one, two = (zipf(rng, tuple(COLOURS), 0.7) for _ in range(2))
    if category == "one":
        return Claim((Group(1, first, rng.choice((None, one, one))),))
    if category == "count":
        return Claim((Group(zipf(rng, (2, 3, 4, 5)), first, rng.choice((None, one))),))
    if category == "two":
        return Claim((Group(1, first), Group(1, second)))
    if category == "position":
        coloured = rng.random() < 0.5
        pair = (Group(1, first, one if coloured else None), Group(1, second, two if coloured else None))
        return Claim(pair, rng.choice(RELATIONS))
    numbers = zipf(rng, PAIRS, 0.7) if category == "binding" else (1, 1)
    return Claim((Group(numbers[0], first, one), Group(numbers[1], second, two)))


def held_out(claim: Claim) -> bool:
    """Return whether a claim contains a combination that is never drawn in training.

    The combinations are a shape with a colour, a shape with a number above one, and two shapes.
    """
    found = [f"{group.shape}|{group.colour}" for group in claim.groups if group.colour]
    found += [f"{group.shape}|{group.number}" for group in claim.groups if group.number > 1]
    if len(claim.groups) == 2:
        found.append("|".join(sorted(group.shape for group in claim.groups)))
    return any(_hash(combination) < HELD_OUT_SHARE for combination in found)


def _hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def sample(rng: random.Random, category: str | None = None) -> tuple[Claim, Claim]:
    """Draw a training scene: what its caption states, and the same with a colour for every group."""
    while True:
        stated = draw(rng, category)
        shown = coloured(stated, rng)
        if not held_out(shown):
            return stated, shown


def coloured(claim: Claim, rng: random.Random) -> Claim:
    """Choose the colours that a claim leaves open."""
    groups = (replace(g, colour=g.colour or zipf(rng, tuple(COLOURS), 0.7)) for g in claim.groups)
    return replace(claim, groups=tuple(groups))


def edits(claim: Claim) -> Iterator[Claim]:
    """Yield every claim that differs in one thing that is stated: a shape, number, colour, place, or a swap."""
    for k, group in enumerate(claim.groups):
        for changed in _regroup(group):
            yield replace(claim, groups=(*claim.groups[:k], changed, *claim.groups[k + 1 :]))
    if claim.relation:
        yield from (replace(claim, relation=other) for other in RELATIONS if other != claim.relation)
    if len(claim.groups) == 2:
        a, b = claim.groups
        yield replace(claim, groups=(replace(a, colour=b.colour), replace(b, colour=a.colour)))
        yield replace(claim, groups=(replace(a, number=b.number), replace(b, number=a.number)))


def _regroup(group: Group) -> Iterator[Group]:
    """Yield the groups that differ in shape, in number by one, or in the colour that is stated."""
    yield from (replace(group, shape=shape) for shape in SHAPES if shape != group.shape)
    yield from (replace(group, number=n) for n in (group.number - 1, group.number + 1) if 1 <= n <= 5)
    if group.colour:
        yield from (replace(group, colour=colour) for colour in COLOURS if colour != group.colour)


def edit(claim: Claim, rng: random.Random) -> Claim:
    """Draw a claim that differs in one thing, and that the grammar makes."""
    others = [other for other in edits(claim) if other != claim and fits(other)]
    kinds: dict[str, list[Claim]] = {}
    for other in others:
        kinds.setdefault(_difference(claim, other), []).append(other)
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def _difference(a: Claim, b: Claim) -> str:
    """Name what two claims differ in, so that each kind of edit is equally likely."""
    for attribute in ("shape", "number", "colour"):
        if [getattr(g, attribute) for g in a.groups] != [getattr(g, attribute) for g in b.groups]:
            return attribute
    return "relation"


def training_caption(stated: Claim, rng: random.Random) -> str:
    """Return the caption of a training scene, which is wrong in one thing in a fifth of the data."""
    return caption(edit(stated, rng) if rng.random() < WRONG_SHARE else stated)


def all_claims() -> list[Claim]:
    """Return every claim of the grammar, in a fixed order."""
    shades = (None, *COLOURS)
    singles = [Claim((Group(n, shape, colour),)) for n, shape, colour in product(range(1, 6), SHAPES, shades)]
    pairs = [(a, b) for a, b in product(SHAPES, SHAPES) if a != b]
    doubles = [Claim((Group(1, a), Group(1, b))) for a, b in pairs]
    for (a, b), c, d in product(pairs, COLOURS, COLOURS):
        doubles += [Claim((Group(m, a, c), Group(n, b, d))) for m, n in ((1, 1), *PAIRS)]
        doubles += [Claim((Group(1, a, c), Group(1, b, d)), relation) for relation in RELATIONS]
    placed = [Claim((Group(1, a), Group(1, b)), relation) for (a, b), relation in product(pairs, RELATIONS)]
    return singles + doubles + placed
