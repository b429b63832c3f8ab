"""The scenes world by name, once it has been trained: the model, its scorers, its judge, and what a run measures."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nulltta
from nulltta import rewards
from nulltta.embedded.scenes.grammar import parse
from nulltta.embedded.scenes.render import render
from nulltta.embedded.worlds import WORLDS, world_of
from nulltta.errors import LoadError
from nulltta.evaluation.measures import facts, held_out_measures


@pytest.fixture
def scenes(trained: Path, monkeypatch: pytest.MonkeyPatch) -> nulltta.GuidedModel:
    monkeypatch.setitem(WORLDS, "scenes", replace(WORLDS["scenes"], weights=trained / "w"))  # type: ignore[arg-type]
    return nulltta.load_model("scenes")


def test_the_model_is_aligned_with_its_own_scorer(scenes: nulltta.GuidedModel) -> None:
    assert scenes.name == "scenes"
    config = nulltta.NullTTAConfig.preset("scenes", num_inference_steps=3, inner_steps=(1, 1), num_particles=2)
    assert config.guidance_scale == nulltta.NullTTAConfig.embedded().guidance_scale
    result = nulltta.align(scenes, "two red stars", "scenes-clip", config=config)
    assert result.images.shape == (1, 3, 64, 64)


def test_a_prompt_of_another_world_is_announced(scenes: nulltta.GuidedModel) -> None:
    config = nulltta.NullTTAConfig.preset("scenes", num_inference_steps=2)
    with pytest.warns(
        UserWarning, match="the scenes model does not know 'fox': it draws plain shapes only, as in 'a r"
    ):
        nulltta.align(scenes, "a red fox to the left of two stars", "brightness", config=config, method="plain")


def test_a_run_measures_by_the_held_out_scorers_and_the_facts(scenes: nulltta.GuidedModel) -> None:
    measures = held_out_measures(scenes)
    assert list(measures) == ["scenes-conv", "scenes-questions", "facts"]
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert all(math.isfinite(measure(images, ["a star"])[0]) for measure in measures.values())
    both = measures["scenes-questions"](images.expand(2, -1, -1, -1), ["a star", "a fox"])
    assert torch.isfinite(both).tolist() == [True, False]  # the grammar does not know a fox


def test_facts_are_those_of_the_models_own_grammar() -> None:
    images = render([parse("two red stars and a blue heart")], random.Random(0)).float() / 255
    prompts = ["two red stars and a blue heart", "three red stars", "a fox on a blue background"]
    shares = facts("scenes")(images.expand(3, -1, -1, -1), prompts).tolist()
    assert shares[:2] == pytest.approx([1.0, 1 / 3])
    assert math.isnan(shares[2])


def test_a_world_that_was_not_trained_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(WORLDS, "scenes", replace(WORLDS["scenes"], weights=tmp_path))  # type: ignore[arg-type]
    with pytest.raises(LoadError, match="`make world WORLD=scenes` trains them"):
        nulltta.load_model("scenes")
    with pytest.raises(LoadError, match="`make world WORLD=scenes` trains them"):
        rewards.load("scenes-clip")


def test_every_scorer_of_a_world_is_a_known_reward() -> None:
    listed = {known.name for known in rewards.catalogue()}
    for world in WORLDS.values():
        assert {world.target, *world.held_out} <= listed
        assert world_of(world.target).weights == world.weights
