"""The schedules of inner steps and of annealing."""

from __future__ import annotations

import pytest

from nulltta.algorithm import schedules


@pytest.mark.parametrize(("n_max", "published"), [(25, 1520), (55, 3052), (115, 6111)])
def test_inner_steps_add_up_to_the_published_count(n_max: int, published: int) -> None:
    assert sum(schedules.inner_step_count(i, 0.008, (5, n_max)) for i in range(100)) == published


def test_annealing_falls_from_one_to_zero_and_stays() -> None:
    a = [schedules.regularisation(i, 0.008) for i in range(100)]
    assert a[0] == 1.0
    assert a[50] == pytest.approx(2 - 1.008**50)
    assert a[86] > 0
    assert a[87:] == [0.0] * 13


@pytest.mark.parametrize("steps", [10, 25, 50, 100, 250])
def test_auto_annealing_finishes_at_the_same_fraction_of_sampling(steps: int) -> None:
    gamma = schedules.annealing_coefficient("auto", steps)
    for index in range(steps):
        assert schedules.progress(index, gamma) == pytest.approx(schedules.progress(100 * index / steps, 0.008))


def test_a_given_annealing_coefficient_is_used_unchanged() -> None:
    assert schedules.annealing_coefficient(0.02, 10) == 0.02
