"""The sliders of a sum's weights."""

from __future__ import annotations

from nulltta.ui.weights import MAX_SLIDERS, sliders, weighed, with_term


def test_a_sum_has_one_slider_per_term_and_a_single_reward_has_none() -> None:
    assert [(s.label, s.weight, s.low, s.high, s.step) for s in sliders("0.7*clip - 2*z(clip-b + brightness)")] == [
        ("clip", 0.7, 0.0, 1.4, 0.01), ("z(clip-b + brightness)", -2.0, -4.0, 4.0, 0.01),
    ]  # fmt: skip
    assert sliders("clip") == []
    assert sliders("0.7*clip +") == []  # half typed


def test_moving_a_slider_rewrites_only_its_weight() -> None:
    assert weighed("0.7*clip + 0.3*(sharpness - jpeg)", [0.5, 0.3, 0, 0, 0, 0]) == "0.5*clip + 0.3*(sharpness - jpeg)"
    assert weighed("clip + brightness", [1, -0.25]) == "clip - 0.25*brightness"
    assert weighed("clip + brightness", [0, 1]) == "0*clip + brightness"


def test_terms_beyond_the_sliders_keep_their_weights() -> None:
    names = ["clip", "clip-b", "colourfulness", "brightness", "sharpness", "jpeg", "jpeg-incompressibility"]
    expression = " + ".join(f"0.1*{name}" for name in names)
    assert len(sliders(expression)) == MAX_SLIDERS
    assert weighed(expression, [0.2] * MAX_SLIDERS).endswith(" + 0.2*jpeg + 0.1*jpeg-incompressibility")


def test_adding_a_reward_makes_a_sum() -> None:
    assert with_term("clip", "brightness") == "clip + 0.3*brightness"
    assert with_term(" ", "brightness") == "brightness"
