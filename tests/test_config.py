"""The configuration: defaults, what is refused, and what depends on what."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from nulltta import NullTTAConfig, NullTTAError
from nulltta.baselines import BASELINES
from nulltta.config.effects import OPTIMISING
from nulltta.errors import InvalidValue


def test_defaults_are_published_except_for_zeroth_order_directions() -> None:
    assert asdict(NullTTAConfig()) == {
        "num_inference_steps": 100, "guidance_scale": 7.5, "guidance": "cfg", "nag_scale": 4.0, "nag_tau": 2.5,
        "nag_alpha": 0.25, "nag_norm": "l1", "nag_null": "empty", "inner_steps": (5, 25), "num_particles": 3,
        "reward_weight": None, "kl_weight": 0.002, "prior_weight": None, "prior_variance": 0.01, "annealing": 0.008,
        "learning_rate": 0.01, "eta": 1.0, "conventions": "paper", "gradient": "auto",
        "zeroth_order_samples": 4, "zeroth_order_radius": 0.1, "zeroth_order_directions": "cma",
        "inner_decoder": "full", "optimise_between": (0.0, 1.0), "kl_target": None, "noise_tilt": 0.0,
        "budget": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("guidance_scale", 1.0, "has no effect"),
        ("guidance_scale", -3, "guidance_scale"),
        ("guidance_scale", float("nan"), "guidance_scale"),
        ("inner_steps", (9, 2), "reversed"),
        ("inner_steps", (1,), "two whole numbers"),
        ("inner_steps", (-1, 2), "two whole numbers"),
        ("num_particles", 0, "num_particles"),
        ("num_particles", 99_999_999_999, "num_particles must be 10000 or less"),
        ("zeroth_order_samples", 10_001, "zeroth_order_samples must be 10000 or less"),
        ("num_particles", 1.5, "num_particles"),
        ("num_inference_steps", 0, "num_inference_steps"),
        ("reward_weight", -1, "reward_weight"),
        ("kl_weight", -1, "kl_weight"),
        ("prior_variance", 0, "prior_variance"),
        ("annealing", "soon", "auto"),
        ("annealing", -0.1, "annealing"),
        ("eta", 1.5, "eta"),
        ("learning_rate", True, "learning_rate"),
        ("conventions", "mine", "paper, release, exact"),
        ("inner_decoder", "quarter", "full, tiny"),
        ("optimise_between", (0.5, 0.5), "two shares"),
        ("optimise_between", (0.5,), "two shares"),
        ("optimise_between", (-0.1, 1.0), "two shares"),
        ("prior_weight", -1, "prior_weight"),
        ("kl_target", 0, "kl_target must be a number above 0"),
        ("budget", "20s", "budget must be a whole number"),
        ("gradient", "guess", "zeroth-order"),
        ("reward_weight", "much", "reward_weight"),
        ("zeroth_order_samples", 0, "zeroth_order_samples"),
        ("zeroth_order_radius", 0, "zeroth_order_radius"),
        ("zeroth_order_directions", "up", "white, cma"),
    ],
)
def test_bad_values_are_refused_by_name(field: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=says) as caught:
        NullTTAConfig(**{field: value})
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_the_rewards_default_weight_depends_on_the_gradient() -> None:
    config = NullTTAConfig()
    assert config.resolved(differentiable=True).reward_weight == 100.0
    assert config.resolved(differentiable=False).reward_weight == 50.0
    assert NullTTAConfig(reward_weight=7.0).resolved(differentiable=False).reward_weight == 7.0
    assert NullTTAConfig(gradient="autograd").resolved(differentiable=False).gradient == "autograd"


def test_the_priors_weight_is_that_of_the_consistency_term_unless_given() -> None:
    assert NullTTAConfig(kl_weight=0.3).weights == (100.0, 0.3, 0.3)
    assert NullTTAConfig(kl_weight=0.3, prior_weight=0.0).weights == (100.0, 0.3, 0.0)
    assert NullTTAConfig(kl_weight=0.3).resolved(differentiable=False).weights == (50.0, 0.3, 0.3)


@pytest.mark.parametrize(
    ("preset", "changes", "field", "says"),
    [
        ("4-step", {"guidance_scale": 3.0}, "guidance_scale", "has no effect: the guidance is nag"),
        ("embedded", {"nag_tau": 3.0}, "nag_tau", "has no effect: the guidance is cfg"),
        ("paper", {"guidance": "cfg+nag", "nag_null": "prompt"}, "nag_null", "also an empty one's"),
        ("paper", {"inner_steps": (0, 0), "learning_rate": 0.1}, "learning_rate", "no inner steps"),
        ("paper", {"inner_steps": (0, 0), "noise_tilt": 0.3}, "noise_tilt", "no inner steps"),
        ("paper", {"gradient": "autograd", "zeroth_order_samples": 8}, "zeroth_order_samples", "autograd"),
        ("paper", {"gradient": "zeroth-order", "learning_rate": 0.1}, "learning_rate", "CMA-ES has none"),
        ("paper", {"prior_weight": 0.0, "prior_variance": 0.1}, "prior_variance", "the prior's weight is 0"),
        ("paper", {"eta": 0.0, "noise_tilt": 0.3}, "noise_tilt", "must be 0 at eta 0"),
        ("paper", {"guidance": "nag", "nag_alpha": 0}, "nag_alpha", "at 0 the null text has no effect"),
        ("paper", {"inner_steps": (0, 0), "budget": 9000}, "budget", "no inner steps"),
        ("paper", {"learning_rate": 0}, "learning_rate", "must be above 0: at 0 the inner steps move nothing"),
        ("paper", {"kl_weight": 0, "inner_steps": (5, 5), "annealing": 0.1}, "annealing", "without a regulariser"),
        ("paper", {"guidance": "cfg+nag", "nag_scale": 0}, "nag_scale", "at 0 that is cfg"),
        ("4-step", {"nag_scale": 0, "inner_steps": (0, 0), "nag_tau": 3.0}, "nag_tau", "NAG's scale is 0"),
        ("paper", {"inner_steps": (0, 1), "annealing": 0.001}, "inner_steps", "come to none at every optimised"),
        ("paper", {"optimise_between": (0.1, 0.101)}, "optimise_between", "covers none of the 100 denoising steps"),
    ],
)
def test_a_change_of_a_preset_without_effect_is_refused(
    preset: str, changes: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(InvalidValue, match=says) as caught:
        NullTTAConfig.preset(preset, **changes)
    assert caught.value.field == field


def test_what_a_preset_holds_without_effect_is_accepted() -> None:
    config = NullTTAConfig.preset("embedded", guidance="nag", inner_steps=(0, 0))
    assert config.guidance_scale == 3.0
    spelt_out = NullTTAConfig.preset("embedded", **asdict(config))
    assert spelt_out == config


def test_what_can_have_an_effect_is_accepted() -> None:
    NullTTAConfig.preset("paper", kl_weight=0.0, annealing=0.1)  # it still tells how the inner steps grow
    NullTTAConfig.preset("4-step", nag_scale=0.0, inner_steps=(0, 0))  # the model without guidance
    NullTTAConfig.preset("embedded", num_inference_steps=1)  # for a method that takes no inner steps


def test_methods_without_inner_steps_are_those_that_cost_something_of_their_own() -> None:
    taking = {name for name, baseline in BASELINES.items() if baseline.cost is None}
    assert set(OPTIMISING) == {"null-tta", *taking}


def test_equal_configurations_behave_alike() -> None:
    """A default weight equals the same number given."""
    given, default = NullTTAConfig(reward_weight=100.0), NullTTAConfig().resolved(differentiable=True)
    assert default.weights == given.weights
    assert given.resolved(differentiable=False).reward_weight == 100.0


def test_cma_needs_a_population() -> None:
    with pytest.raises(NullTTAError, match="2 or more for cma"):
        NullTTAConfig(zeroth_order_directions="cma", zeroth_order_samples=1)


def test_a_configuration_is_the_same_after_json() -> None:
    import json

    config = NullTTAConfig.embedded(kl_weight=0.5)
    assert NullTTAConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_presets_take_changes() -> None:
    assert NullTTAConfig.preset("embedded") == NullTTAConfig.embedded()
    assert NullTTAConfig.preset("embedded", num_particles=7).num_particles == 7
    assert NullTTAConfig.preset("any other") == NullTTAConfig()
