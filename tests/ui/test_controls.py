"""The controls of the page: one per setting, and what they send."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from nulltta import NullTTAConfig, NullTTAError
from nulltta.ui.controls import FIRST, SettingControl, controls, settings

MODELS = ("embedded", "some/model")


def through_json(control: SettingControl, config: NullTTAConfig) -> object:
    """Return what a browser sends back: JSON's types, with one kind of number."""
    value = control.value(config)
    assert value is None if control.optional else type(value) in (int, float, str), control
    return json.loads(json.dumps(float(value) if type(value) is int else value))


def changed(model: str, **values: object) -> NullTTAConfig:
    shown = controls()
    sent = {(c.name, c.place): through_json(c, NullTTAConfig.preset(model)) for c in shown}
    for name, value in values.items():
        places = [key for key in sent if key[0] == name]
        sent |= dict(zip(places, value if isinstance(value, tuple) else (value,), strict=True))
    return settings(shown, [sent[c.name, c.place] for c in shown], model)


def test_every_field_is_a_control_and_the_important_ones_come_first() -> None:
    names = list(dict.fromkeys(control.name for control in controls()))
    assert names[: len(FIRST)] == list(FIRST)
    assert sorted(names) == sorted(field.name for field in fields(NullTTAConfig))


@pytest.mark.parametrize("model", MODELS)
def test_unchanged_controls_are_the_models_preset(model: str) -> None:
    assert changed(model) == NullTTAConfig.preset(model)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inner_steps", (2, 3)), ("num_inference_steps", 7), ("eta", 0.5), ("annealing", "0.01"), ("annealing", "auto"),
        ("budget", 4000), ("prior_weight", "0.5"), ("kl_target", "2"), ("conventions", "exact"),
    ],
)  # fmt: skip
def test_changed_controls_reach_the_run(name: str, value: object) -> None:
    got = getattr(changed("embedded", **{name: value}), name)
    assert got == (float(value) if value in ("0.01", "0.5", "2") else value)


def test_a_default_that_depends_on_another_setting_follows_it() -> None:
    assert changed("embedded", gradient="zeroth-order").weights[0] == 50
    assert changed("embedded", gradient="zeroth-order", reward_weight=7).reward_weight == 7


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("eta", None, "eta is empty"), ("budget", "", "budget is empty"), ("inner_steps", (5, 2), "reversed"),
     ("num_particles", 0, "1 or more"), ("num_particles", 2.5, "whole")],
)  # fmt: skip
def test_an_invalid_control_is_refused_in_one_line(name: str, value: object, says: str) -> None:
    with pytest.raises(NullTTAError, match=says) as refused:
        changed("embedded", **{name: value})
    assert "\n" not in str(refused.value)
