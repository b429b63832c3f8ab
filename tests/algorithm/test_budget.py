"""A budget of evaluations reduces the inner steps in proportion."""

from __future__ import annotations

import pytest

from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.budget import by_step, evaluations, planned, spent
from nulltta.algorithm.schedules import afforded
from nulltta.testing import Gaussian, nearness

CONFIG = NullTTAConfig(
    num_inference_steps=10, inner_steps=(2, 8), num_particles=2, guidance_scale=3.0, annealing="auto"
)


def test_counts_are_cut_in_proportion_and_add_up() -> None:
    assert afforded([2, 4, 6], 100) == [2, 4, 6]
    assert afforded([2, 4, 6], 6) == [1, 2, 3]
    assert afforded([2, 4, 6], 7) == [1, 2, 4]
    assert afforded([2, 4, 6], 0) == [0, 0, 0]
    assert afforded([0, 0], 0) == [0, 0]


@pytest.mark.parametrize("budget", [60, 100, 140, 10_000])
def test_a_budget_of_evaluations_is_kept_and_spent(budget: int) -> None:
    config = NullTTAConfig(**{**vars_of(CONFIG), "budget": budget})
    inner, others = evaluations(config)
    assert inner == sum(planned(config)) <= sum(planned(CONFIG))
    assert 2 * inner + others <= budget
    assert 2 * inner + others >= budget - 3 or planned(config) == planned(CONFIG)  # an inner step may need references


def test_a_zeroth_order_inner_step_costs_one_evaluation_per_point() -> None:
    model = Gaussian()
    config = NullTTAConfig(
        **{**vars_of(CONFIG), "gradient": "zeroth-order", "zeroth_order_directions": "white", "budget": 140}
    )
    align(model, "red", nearness, config=config)
    assert (model.with_gradient, model.without_gradient) == (0, spent(config))
    assert 140 - 5 <= spent(config) <= 140


@pytest.mark.parametrize("gradient", ["autograd", "zeroth-order"])
def test_the_steps_spend_the_budget_except_for_the_references(gradient: str) -> None:
    config = NullTTAConfig(**{**vars_of(CONFIG), "gradient": gradient, "optimise_between": (0.5, 1.0)})
    counts, steps = planned(config), by_step(config)
    assert [2 * config.num_particles == spent_here for spent_here in steps] == [count == 0 for count in counts]
    optimised = sum(count > 0 for count in counts)
    first = next(i for i, count in enumerate(counts) if count)
    assert sum(steps) == spent(config) - optimised - (len(counts) - first)


def test_a_budget_below_the_candidates_is_refused() -> None:
    with pytest.raises(NullTTAError, match="give at least 40"):
        planned(NullTTAConfig(**{**vars_of(CONFIG), "budget": 30}))


@pytest.mark.parametrize("budget", ["20", "fast", "20s", 1.5, -1, float("inf"), True])
def test_a_malformed_budget_is_refused(budget: object) -> None:
    with pytest.raises(NullTTAError, match="budget"):
        NullTTAConfig(budget=budget)  # type: ignore[arg-type]


def vars_of(config: NullTTAConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
