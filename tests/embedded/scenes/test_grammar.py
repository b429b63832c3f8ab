"""The language of the scenes world: captions and claims, what is held out, wrong captions, prompts outside it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from nulltta.embedded.scenes.grammar import (
    CATEGORIES,
    Claim,
    Group,
    all_claims,
    caption,
    draw,
    edit,
    fits,
    held_out,
    parse,
    sample,
    training_caption,
    words,
)
from nulltta.errors import InvalidValue


def test_a_caption_parses_into_its_claim() -> None:
    claims = all_claims()
    assert len(set(claims)) == len(claims)
    for claim in random.Random(0).sample(claims, 2000):
        assert fits(claim)
        assert parse(caption(claim)) == parse(caption(claim).upper() + ".") == claim
        assert set(caption(claim).split()) <= set(words())


def test_captions_are_english() -> None:
    assert caption(Claim((Group(1, "house", "orange"),))) == "an orange house"
    assert caption(Claim((Group(2, "star", "red"), Group(3, "fish", "blue")))) == "two red stars and three blue fish"
    assert caption(Claim((Group(1, "cross"), Group(1, "moon")), "left of")) == "a cross left of a moon"
    assert parse("one star to the left of a moon") == Claim((Group(1, "star"), Group(1, "moon")), "left of")


@pytest.mark.parametrize(
    "prompt",
    ["", "a", "a dragon", "six stars", "a beige star", "a star and a star", "a star above two moons", "two star",
     "three stars and three moons", "a star and a moon and a cross", "a star and", "red star"],
)  # fmt: skip
def test_a_prompt_outside_the_grammar_is_refused_in_one_line(prompt: str) -> None:
    with pytest.raises(InvalidValue, match="is not a prompt of the scenes world") as caught:
        parse(prompt)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_is_drawn_and_recognised(category: str) -> None:
    rng = random.Random(0)
    claims = [draw(rng, category) for _ in range(200)]
    assert {claim.category for claim in claims} == {category}
    assert all(fits(claim) for claim in claims)


def test_held_out_combinations_never_occur_in_training() -> None:
    rng = random.Random(1)
    shown = [seen for _, seen in (sample(rng) for _ in range(3000))]
    assert not any(held_out(claim) for claim in shown)
    coloured = {(group.shape, group.colour) for claim in shown for group in claim.groups}
    never = [c for c in all_claims() if c.category == "one" and c.groups[0].colour and held_out(c)]
    assert 3 <= len(never) <= 20
    assert not coloured & {(claim.groups[0].shape, claim.groups[0].colour) for claim in never}


def test_frequencies_fall_as_zipf_says() -> None:
    rng = random.Random(2)
    shapes = Counter(group.shape for stated, _ in (sample(rng) for _ in range(4000)) for group in stated.groups)
    assert shapes["circle"] > 2 * shapes["heart"] > 2 * shapes["crown"] > 0


def test_an_edit_changes_one_thing_and_stays_in_the_grammar() -> None:
    rng = random.Random(3)
    for _ in range(500):
        claim = draw(rng)
        other = edit(claim, rng)
        assert other != claim
        assert parse(caption(other)) == other


def test_a_fifth_of_the_training_captions_is_wrong() -> None:
    rng = random.Random(4)
    stated = [sample(rng)[0] for _ in range(2000)]
    wrong = sum(parse(training_caption(claim, rng)) != claim for claim in stated)
    assert 0.17 < wrong / len(stated) < 0.23
