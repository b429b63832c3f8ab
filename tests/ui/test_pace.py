"""Predictions of how long runs take, and the choices labelled by them."""

from __future__ import annotations

import pytest

from nulltta import NullTTAConfig
from nulltta.algorithm.budget import planned
from nulltta.ui.pace import Pace
from nulltta.ui.presets import choices, settings_of

CONFIG = NullTTAConfig(num_inference_steps=6, inner_steps=(2, 4), num_particles=2, optimise_between=(0.5, 1.0))


def test_a_pace_that_has_seen_a_steady_run_predicts_it() -> None:
    pace = Pace()
    sampling, inner, prompts = 0.01, 0.05, 3
    seconds = [prompts * (2 * 2 * sampling + 2 * inner * count) for count in planned(CONFIG)]
    for each, count in zip(seconds, planned(CONFIG), strict=True):
        pace.observe(each, CONFIG, prompts, count)
    assert pace.of_steps(CONFIG, prompts)[:-1] == pytest.approx(seconds)
    plain = 2 * sampling * prompts * 6
    assert pace.predicted(CONFIG, prompts) == pytest.approx(sum(seconds) + plain)


def test_before_anything_is_measured_steps_with_inner_steps_weigh_more() -> None:
    pace = Pace()
    assert pace.predicted(CONFIG, 1) is None
    steps = pace.of_steps(CONFIG, 1)
    assert steps[0] < steps[-2]


def test_the_choices_say_how_long_they_take_and_are_in_order() -> None:
    pace = Pace(sampling=0.02, inner=0.04)
    fast, balanced, best = (pace.predicted(settings_of(name, "embedded"), 1) for _, name in choices("embedded", pace))
    assert fast is not None
    assert fast < balanced < best  # type: ignore[operator]
    assert [label for label, _ in choices("embedded", Pace())] == ["Fast", "Balanced", "Best"]
    assert all("about" in label for label, _ in choices("embedded", pace))
