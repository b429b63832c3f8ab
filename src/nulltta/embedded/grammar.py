"""The language of the embedded model: scenes, their captions, and the facts that a prompt states.

    a cat face on a blue background, noto style
    two foxes on an orange background
    an octopus and a rose on a white background, fluent style

A composition (which objects, which background, which style) is either trained on or held out; a stable hash decides
which, so that no training run ever sees a held-out one.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice, permutations, product, zip_longest
from typing import Literal

from nulltta.errors import InvalidValue

from .sprites import index

Size = Literal["cpu", "gpu"]

BACKGROUNDS = {
    "red": (220, 50, 47),
    "orange": (245, 150, 50),
    "yellow": (250, 220, 80),
    "green": (90, 180, 90),
    "blue": (70, 130, 220),
    "purple": (150, 90, 200),
    "pink": (250, 170, 200),
    "white": (255, 255, 255),
    "black": (25, 25, 25),
    "gray": (150, 150, 150),
}
COUNTS = ("one", "two", "three")
HELD_OUT_SHARE = 0.125
PLURALS = {"fox": "foxes", "octopus": "octopuses", "butterfly": "butterflies", "tomato": "tomatoes",
           "strawberry": "strawberries", "cherries": "cherries", "grapes": "grapes", "pineapple": "pineapples",
           "tropical fish": "tropical fish", "broccoli": "broccoli", "bread": "breads"}  # fmt: skip
CONSONANT_VOWELS = ("unicorn",)  # written with a vowel first, spoken with a consonant


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What an embedded model of one size can draw.

    Attributes:
        objects: names of objects.
        styles: names of sprite sheets.
        backgrounds: the keys of BACKGROUNDS.
    """

    objects: tuple[str, ...]
    styles: tuple[str, ...]
    backgrounds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in one image.

    Attributes:
        objects: one name, or two different ones from left to right.
        count: how many things are drawn: 1 to 3 of one name, 2 for two names.
        background: a key of BACKGROUNDS.
        style: a sprite sheet.
    """

    objects: tuple[str, ...]
    count: int
    background: str
    style: str

    @property
    def kind(self) -> str:
        """ "one" thing, several of the "same" name, or two "different" names."""
        return "different" if len(self.objects) > 1 else "one" if self.count == 1 else "same"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a prompt states.

    Attributes:
        objects: the different names of its objects.
        count: how many things it names.
        background: a key of BACKGROUNDS, or None if it states none.
        style: a sprite sheet, or None if it states none.
    """

    objects: tuple[str, ...]
    count: int
    background: str | None = None
    style: str | None = None


@cache
def vocabulary(size: Size = "cpu") -> Vocabulary:
    """Return what a size can draw: 24 objects in two styles for "cpu", everything for "gpu"."""
    sheets = index()
    objects, styles = tuple(sheets["objects"]), tuple(sheets["styles"])
    if size == "cpu":
        objects, styles = objects[:24], ("noto", "fluent")
    return Vocabulary(objects, styles, tuple(BACKGROUNDS))


def plural(name: str) -> str:
    """Return the plural of an object's name: "fox" -> "foxes"."""
    return PLURALS.get(name) or f"{name}s"


def article(words: str) -> str:
    """Put "a" or "an" before `words`."""
    vowel = words[0] in "aeiou" and not words.startswith(CONSONANT_VOWELS)
    return f"{'an' if vowel else 'a'} {words}"


def caption(scene: Scene, *, background: bool = True, style: bool = True) -> str:
    """Describe a scene in English, with or without its background and style."""
    if scene.kind == "same":
        text = f"{COUNTS[scene.count - 1]} {plural(scene.objects[0])}"
    else:
        text = " and ".join(article(name) for name in scene.objects)
    if background:
        text += f" on {article(scene.background)} background"
    if style:
        text += f", {scene.style} style"
    return text


def words(size: Size = "gpu") -> tuple[str, ...]:
    """Return every word that a caption of this size can contain, sorted; each is one token of the tokenizer."""
    vocab = vocabulary(size)
    text = ["a an one and on background style ,", *COUNTS, *vocab.backgrounds, *vocab.styles]
    text += [form for name in vocab.objects for form in (name, plural(name))]
    return tuple(sorted(set(" ".join(text).split())))


def unknown_words(text: str, size: Size = "gpu") -> list[str]:
    """Return the words of a text that no caption of this size contains, in lower case, each once."""
    known = {"in", *words(size)}
    return [word for word in dict.fromkeys(re.findall(r"\w+", text.lower())) if word not in known]


PROMPT = re.compile(
    r"(?P<things>.+?)(?: on an? (?P<background>\w+) background)?(?:,? (?:in )?(?P<style>\w+) style)?", re.IGNORECASE
)


@cache
def _singular(size: Size) -> dict[str, str]:
    """Return the name of the object of each plural."""
    return {plural(name): name for name in vocabulary(size).objects}


def _things(text: str, size: Size) -> tuple[tuple[str, ...], int] | None:
    """Return the objects and the count of a phrase: "two foxes" -> (("fox",), 2). None if it is not such a phrase."""
    names = vocabulary(size).objects
    number, _, rest = text.partition(" ")
    if number in COUNTS[1:] and rest in _singular(size):
        return (_singular(size)[rest],), COUNTS.index(number) + 1
    found = tuple(re.sub(r"^(an?|one) ", "", part) for part in text.split(" and "))
    if len(found) > 2 or any(name not in names for name in found):
        return None
    return tuple(dict.fromkeys(found)), len(found)


def parse(prompt: str, size: Size = "cpu") -> Facts:
    """Return the facts that a prompt states.

    Raises:
        InvalidValue: if the prompt is outside the grammar, or names something that this size cannot draw.
    """
    text = " ".join(prompt.lower().replace(" ,", ",").strip(" .\n\t").split())
    match = PROMPT.fullmatch(text)
    things = _things(match["things"], size) if match else None
    vocab = vocabulary(size)
    if match is None or things is None:
        raise InvalidValue(
            f"not a prompt that the embedded model knows: {prompt!r}; write it like "
            "'a cat face on a blue background, noto style' or 'two foxes on an orange background'"
        )
    for known, kind in ((vocab.backgrounds, "background"), (vocab.styles, "style")):
        if match[kind] and match[kind] not in known:
            raise InvalidValue(f"unknown {kind} {match[kind]!r} in {prompt!r}; known: {', '.join(known)}")
    return Facts(*things, match["background"], match["style"])


def completed(facts: Facts, rng: random.Random) -> Scene:
    """Return a scene that shows what a prompt states, with the background and the style that it leaves open drawn."""
    vocab = vocabulary("cpu")
    background, style = facts.background or rng.choice(vocab.backgrounds), facts.style or rng.choice(vocab.styles)
    return Scene(facts.objects, facts.count, background, style)


def kind(prompt: str) -> str:
    """Return the kind of scene that a prompt asks for: "one", "same" or "different" things.

    Raises:
        InvalidValue: if the prompt is outside the grammar.
    """
    facts = parse(prompt)
    return "different" if len(facts.objects) > 1 else "one" if facts.count == 1 else "same"


def held_out(scene: Scene) -> bool:
    """Return whether a scene's composition of objects, background and style never occurs in training."""
    key = "|".join([*sorted(scene.objects), scene.background, scene.style])
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 < HELD_OUT_SHARE


def draw(rng: random.Random, vocab: Vocabulary, kind: str) -> Scene:
    """Draw a scene of one kind ("one", "same", "different"), whether it is held out or not."""
    different = kind == "different"
    objects = tuple(rng.sample(vocab.objects, 2 if different else 1))
    count = 1 if kind == "one" else 2 if different else rng.choice((2, 3))
    return Scene(objects, count, rng.choice(vocab.backgrounds), rng.choice(vocab.styles))


def sample(rng: random.Random, size: Size = "cpu", *, kind: str | None = None, held: bool | None = False) -> Scene:
    """Draw a scene of the training compositions (held=False), of the held-out ones (True), or of both (None)."""
    while True:
        chosen = kind or rng.choices(("one", "same", "different"), (0.45, 0.25, 0.3))[0]
        scene = draw(rng, vocabulary(size), chosen)
        if held is None or held_out(scene) == held:
            return scene


def sample_caption(rng: random.Random, scene: Scene) -> str:
    """Draw a caption for training: three in four are complete, the others leave out background, style or both."""
    background, style = rng.choices(
        ((True, True), (True, False), (False, True), (False, False)), (0.75, 0.1, 0.1, 0.05)
    )[0]
    return caption(scene, background=background, style=style)


def unseen(kind: str, size: Size = "cpu") -> list[Scene]:
    """Return every held-out scene of a kind, in a fixed order."""
    vocab = vocabulary(size)
    things = [(name,) for name in vocab.objects] if kind != "different" else permutations(vocab.objects, 2)
    counts = {"one": (1,), "same": (2, 3), "different": (2,)}[kind]
    scenes = (Scene(*parts) for parts in product(things, counts, vocab.backgrounds, vocab.styles))
    return [scene for scene in scenes if held_out(scene)]


def test_prompts(n: int, seed: int = 0, size: Size = "cpu") -> list[str]:  # noqa: PT028  # not a test
    """Return n different full captions of held-out compositions, alternating between the three kinds of scene.

    Args:
        n: how many.
        seed: of their order.
        size: the vocabulary.

    Raises:
        InvalidValue: if there are not that many.
    """
    piles = _shuffled(seed, size)
    if n > sum(map(len, piles)):
        raise InvalidValue(f"must be at most {sum(map(len, piles))}, the number of held-out compositions, not {n}", "n")
    return [caption(scene) for scene in islice(_in_turn(piles), n)]


test_prompts.__test__ = False  # type: ignore[attr-defined]  # pytest takes the name for a test's


def tuning_prompts(n: int) -> list[str]:
    """Return n captions to choose settings on, alternating between the three kinds of scene.

    They are of held-out compositions too, but each kind is taken from the other end of the list that `test_prompts`
    starts, so that nothing is reported on prompts that it was tuned on.

    Raises:
        InvalidValue: if there are not that many.
    """
    piles = [pile[::-1] for pile in _shuffled(seed=0, size="cpu")]
    if n > sum(map(len, piles)):
        raise InvalidValue(f"must be at most {sum(map(len, piles))}, the number of held-out compositions, not {n}", "n")
    return [caption(scene) for scene in islice(_in_turn(piles), n)]


def _shuffled(seed: int, size: Size) -> list[list[Scene]]:
    """Return the held-out scenes of each of the three kinds, in an order that the seed draws."""
    rng = random.Random(seed)
    piles = [unseen(kind, size) for kind in ("one", "same", "different")]
    for pile in piles:
        rng.shuffle(pile)
    return piles


def _in_turn(piles: Sequence[Sequence[Scene]]) -> Iterator[Scene]:
    """Yield a scene of each pile in turn, until all are used up."""
    return (scene for scene in chain.from_iterable(zip_longest(*piles)) if scene)
