"""The language of the embedded world: scenes, their captions, and the facts a prompt states.

    a cat face on a blue background, noto style
    two foxes on an orange background
    an octopus and a rose on a white background, fluent style

A composition (which objects, which background, which style) is either trained on or held out, for good: a
stable hash decides.
"""

from __future__ import annotations

import hashlib
import random
import re
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
CONSONANT_VOWELS = ("unicorn",)  # spelt with a vowel, spoken with a consonant


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a world of one size can draw."""

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
        """ "one", "same" or "different"."""
        return "different" if len(self.objects) > 1 else "one" if self.count == 1 else "same"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a prompt states; None where it says nothing."""

    objects: tuple[str, ...]
    count: int
    background: str | None = None
    style: str | None = None


@cache
def vocabulary(size: Size = "cpu") -> Vocabulary:
    """The words of a size: few things drawn well on a CPU, everything on a GPU."""
    sheets = index()
    objects, styles = tuple(sheets["objects"]), tuple(sheets["styles"])
    if size == "cpu":
        objects, styles = objects[:24], ("noto", "fluent")
    return Vocabulary(objects, styles, tuple(BACKGROUNDS))


def plural(name: str) -> str:
    """ "fox" -> "foxes"; only the last word bends."""
    return PLURALS.get(name) or f"{name}s"


def article(words: str) -> str:
    """`words` behind "a" or "an"."""
    vowel = words[0] in "aeiou" and not words.startswith(CONSONANT_VOWELS)
    return f"{'an' if vowel else 'a'} {words}"


def caption(scene: Scene, *, background: bool = True, style: bool = True) -> str:
    """The scene in English, with or without its background and style."""
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
    """Every word that a caption of this size can hold, sorted: the tokenizer's whole words."""
    vocab = vocabulary(size)
    text = ["a an one and on background style ,", *COUNTS, *vocab.backgrounds, *vocab.styles]
    text += [form for name in vocab.objects for form in (name, plural(name))]
    return tuple(sorted(set(" ".join(text).split())))


PROMPT = re.compile(
    r"(?P<things>.+?)(?: on an? (?P<background>\w+) background)?(?:,? (?:in )?(?P<style>\w+) style)?", re.IGNORECASE
)


@cache
def _singular(size: Size) -> dict[str, str]:
    return {plural(name): name for name in vocabulary(size).objects}


def _things(text: str, size: Size) -> tuple[tuple[str, ...], int] | None:
    """ "two foxes" -> (("fox",), 2); None when the text is no such phrase."""
    names = vocabulary(size).objects
    number, _, rest = text.partition(" ")
    if number in COUNTS[1:] and rest in _singular(size):
        return (_singular(size)[rest],), COUNTS.index(number) + 1
    found = tuple(re.sub(r"^(an?|one) ", "", part) for part in text.split(" and "))
    if len(found) > 2 or any(name not in names for name in found):
        return None
    return tuple(dict.fromkeys(found)), len(found)


def parse(prompt: str, size: Size = "cpu") -> Facts:
    """The facts a prompt states.

    Raises:
        NullTTAError: the prompt is not in the grammar, or names what this size cannot draw.
    """
    text = " ".join(prompt.lower().replace(" ,", ",").strip(" .\n\t").split())
    match = PROMPT.fullmatch(text)
    things = _things(match["things"], size) if match else None
    vocab = vocabulary(size)
    if match is None or things is None:
        raise InvalidValue(
            f"not a prompt of the embedded world: {prompt!r}; it reads like "
            "'a cat face on a blue background, noto style' or 'two foxes on an orange background'"
        )
    for known, kind in ((vocab.backgrounds, "background"), (vocab.styles, "style")):
        if match[kind] and match[kind] not in known:
            raise InvalidValue(f"unknown {kind} {match[kind]!r} in {prompt!r}; known: {', '.join(known)}")
    return Facts(*things, match["background"], match["style"])


def held_out(scene: Scene) -> bool:
    """Whether this composition of objects, background and style never occurs in training."""
    key = "|".join([*sorted(scene.objects), scene.background, scene.style])
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 < HELD_OUT_SHARE


def draw(rng: random.Random, vocab: Vocabulary, kind: str) -> Scene:
    """A scene of one kind ("one", "same", "different"), trained or held out alike."""
    different = kind == "different"
    objects = tuple(rng.sample(vocab.objects, 2 if different else 1))
    count = 1 if kind == "one" else 2 if different else rng.choice((2, 3))
    return Scene(objects, count, rng.choice(vocab.backgrounds), rng.choice(vocab.styles))


def sample(rng: random.Random, size: Size = "cpu", *, kind: str | None = None, held: bool | None = False) -> Scene:
    """A random scene: of the training compositions, or the held-out ones (held=True), or of both (None)."""
    while True:
        chosen = kind or rng.choices(("one", "same", "different"), (0.45, 0.25, 0.3))[0]
        scene = draw(rng, vocabulary(size), chosen)
        if held is None or held_out(scene) == held:
            return scene


def sample_caption(rng: random.Random, scene: Scene) -> str:
    """A caption for training: three in four say everything, the others leave out background, style or both."""
    background, style = rng.choices(
        ((True, True), (True, False), (False, True), (False, False)), (0.75, 0.1, 0.1, 0.05)
    )[0]
    return caption(scene, background=background, style=style)


def unseen(kind: str, size: Size = "cpu") -> list[Scene]:
    """Every held-out scene of a kind, in a fixed order."""
    vocab = vocabulary(size)
    things = [(name,) for name in vocab.objects] if kind != "different" else permutations(vocab.objects, 2)
    counts = {"one": (1,), "same": (2, 3), "different": (2,)}[kind]
    scenes = (Scene(*parts) for parts in product(things, counts, vocab.backgrounds, vocab.styles))
    return [scene for scene in scenes if held_out(scene)]


def test_prompts(n: int, seed: int = 0, size: Size = "cpu") -> list[str]:  # noqa: PT028  # no test
    """n different full captions of held-out compositions, in turn of the three kinds of scene while they last.

    Raises:
        NullTTAError: there are not that many.
    """
    rng = random.Random(seed)
    piles = [unseen(kind, size) for kind in ("one", "same", "different")]
    if n > sum(map(len, piles)):
        raise InvalidValue(f"{n} prompts wanted, but only {sum(map(len, piles))} compositions are held out")
    for pile in piles:
        rng.shuffle(pile)
    turns = chain.from_iterable(zip_longest(*piles))
    return [caption(scene) for scene in islice((scene for scene in turns if scene), n)]


test_prompts.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest makes of the name


def tuning_prompts(n: int, size: Size = "cpu") -> list[str]:
    """n captions to choose settings on: of held-out compositions too, and from the far end of the list whose head
    is `test_prompts`, so that nothing is reported on what was tuned on."""
    total = sum(len(unseen(kind, size)) for kind in ("one", "same", "different"))
    return test_prompts(total, size=size)[::-1][:n]
