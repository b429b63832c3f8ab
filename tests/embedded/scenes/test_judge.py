"""The renderer and the judge of the scenes world: what is drawn is read back, and what is unclear is not guessed."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nulltta.embedded.scenes.grammar import CATEGORIES, Claim, Group, caption, edit, parse, sample
from nulltta.embedded.scenes.judge import SceneJudge, compare, read
from nulltta.embedded.scenes.render import Thing, arrange, paint, render

STUDIES = Path(__file__).parents[3] / "studies"
TWO = Claim((Group(2, "star", "red"), Group(1, "circle", "blue")))
THINGS = (Thing("star", "red", 4, 4, 16), Thing("star", "red", 40, 4, 16), Thing("circle", "blue", 8, 36, 20))


def drawn(*things: Thing) -> Tensor:
    return paint(things, random.Random(0)).float()[None] / 255


def right(claims: list[Claim], images: Tensor) -> list[bool]:
    return [all(compare(claim, seen).values()) for claim, seen in zip(claims, read(images), strict=True)]


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_judge_reads_what_was_rendered(category: str) -> None:
    rng = random.Random(0)
    pairs = [sample(rng, category) for _ in range(60)]
    images = render([shown for _, shown in pairs], rng).float() / 255
    assert sum(right([stated for stated, _ in pairs], images)) >= 59
    assert sum(right([edit(stated, rng) for stated, _ in pairs], images)) == 0


def test_soft_images_are_read_too() -> None:
    rng = random.Random(1)
    pairs = [sample(rng) for _ in range(100)]
    images = render([shown for _, shown in pairs], rng).float() / 255
    soft = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noisy = (soft + 0.02 * torch.randn(soft.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert sum(right([stated for stated, _ in pairs], noisy)) >= 98


def test_a_thing_that_is_nearly_as_wide_as_high_keeps_its_shape() -> None:
    for shape in ("square", "circle"):
        whole = drawn(Thing(shape, "blue", 16, 16, 24))
        for width, same in ((80, True), (128, False)):
            wide = functional.interpolate(whole, (64, width), mode="bilinear", antialias=True)
            left = (width - 64) // 2
            (seen,) = read(wide[..., left : left + 64])
            assert ([thing.shape for thing in seen] == [shape]) is same


def test_the_judge_agrees_with_labels_by_eye() -> None:
    study = runpy.run_path(str(STUDIES / "judge_labels.py"))
    pictures = json.loads((STUDIES / "results" / "judge_labels.json").read_text())["pictures"]
    images = study["read_sheet"](STUDIES / "results" / "judge_labels.png")[: len(pictures)]
    judged = SceneJudge().all_right(images, [picture["prompt"] for picture in pictures])
    labelled = [picture["right"] for picture in pictures]
    for fresh, share in ((False, 0.95), (True, 0.92)):
        right = [picture["right"] is True and picture["fresh"] is fresh for picture in pictures]
        shown = [bool(one) for one, wanted in zip(judged, right, strict=True) if wanted]
        assert sum(shown) >= share * len(shown) > 50
    assert not any(bool(one) for one, label in zip(judged, labelled, strict=True) if label is False)


def test_each_fact_is_checked_on_its_own() -> None:
    (seen,) = read(drawn(*THINGS))
    assert compare(TWO, seen) == {"objects": True, "count": True, "colours": True}
    assert compare(parse("three red stars and a blue circle"), seen)["count"] is False
    assert compare(parse("two red stars and a green circle"), seen) == {
        "objects": True,
        "count": True,
        "colours": False,
    }
    assert compare(parse("two blue stars and a red circle"), seen)["colours"] is False
    assert compare(parse("two red stars"), seen) == {"objects": False, "count": False, "colours": True}
    (pair,) = read(drawn(*THINGS[1:]))
    assert compare(parse("a star above a circle"), pair)["position"] is True
    assert compare(parse("a star left of a circle"), pair)["position"] is False
    assert compare(parse("a circle left of a star"), pair)["position"] is False  # it lies below it more than left of it


def test_what_cannot_be_told_is_none() -> None:
    image = drawn(THINGS[0], THINGS[1])
    image[:, :, 36:56, 8:44] = torch.tensor([40 / 255, 90 / 255, 210 / 255]).view(1, 3, 1, 1)  # a blue bar
    judge = SceneJudge()
    (verdict,) = judge.verdicts(image, ["two red stars and a blue circle"])
    assert verdict == {"objects": None, "count": None, "colours": None}
    assert judge.facts(image, ["two red stars and a blue circle"]).tolist() == [0.0]
    (verdict,) = judge.verdicts(image, ["a green star and a blue heart"])
    assert verdict == {"objects": None, "count": False, "colours": False}


def test_an_empty_image_shows_nothing() -> None:
    judge = SceneJudge()
    blank = torch.full((1, 3, 64, 64), 0.95)
    assert judge.facts(blank, ["a star"]).tolist() == [0.0]
    assert judge.all_right(torch.cat([blank, drawn(THINGS[0])]), ["a star", "a star"]).tolist() == [0.0, 1.0]


def test_things_keep_apart_and_relations_hold() -> None:
    rng = random.Random(2)
    for _ in range(100):
        _, shown = sample(rng)
        things = arrange(shown, rng)
        assert len(things) == shown.number
        for thing in things:
            assert min(thing.left, thing.top) >= 4
            assert max(thing.left, thing.top) + thing.size <= 60
            assert (thing.left % 4, thing.top % 4, thing.size % 4) == (0, 0, 0)


def test_a_seed_repeats_its_drawing() -> None:
    claim = parse(caption(TWO))
    images = [render([claim], random.Random(seed)) for seed in (3, 3, 4)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
