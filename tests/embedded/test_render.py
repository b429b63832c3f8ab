"""Rendering: every sprite is drawn, and scenes are deterministic."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nulltta.embedded.grammar import BACKGROUNDS, Scene, sample, vocabulary
from nulltta.embedded.render import render
from nulltta.embedded.sprites import HERE, index, sprite


def test_every_object_is_drawn_in_every_style() -> None:
    large = vocabulary("gpu")
    for style in large.styles:
        drawn = [np.asarray(sprite(name, style, 32)) for name in large.objects]
        assert all((picture[..., 3] > 200).mean() > 0.1 for picture in drawn)
        assert len({picture.tobytes() for picture in drawn}) == len(drawn)


def test_the_sheets_are_small() -> None:
    sheets = [HERE / f"{style}.png" for style in index()["styles"]]
    assert sum(path.stat().st_size for path in sheets) < 2_000_000


def test_a_scene_is_deterministic_and_has_its_background() -> None:
    scene = Scene(("fox", "rose"), 2, "blue", "noto")
    image = render(scene, random.Random(3))
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.uint8
    assert torch.equal(image, render(scene, random.Random(3)))
    corner = image[:, 0, 0].tolist()
    assert all(abs(a - b) <= 7 for a, b in zip(corner, BACKGROUNDS["blue"], strict=True))


@pytest.mark.parametrize("kind", ["one", "same", "different"])
def test_the_background_reaches_the_edges(kind: str) -> None:
    rng = random.Random(4)
    for _ in range(50):
        image = render(sample(rng, kind=kind), rng)
        border = torch.cat([image[:, 0], image[:, -1]], 1)  # the outer two of three things may touch the sides
        assert (border == border[:, :1]).all()
