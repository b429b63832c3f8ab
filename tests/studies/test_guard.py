"""The statistics of the study of what keeps a reward from being hacked."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


def test_holm_multiplies_by_what_is_left_and_keeps_the_order(study: Callable[[str], ModuleType]) -> None:
    assert study("guard").holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert study("guard").holm([0.5, 0.9]) == [1.0, 1.0]


def test_the_sign_test_of_equal_differences_is_that_of_coin_tosses(study: Callable[[str], ModuleType]) -> None:
    assert study("guard").sign_test(np.ones(8)) == pytest.approx(2 / 2**8, rel=0.15)
    assert study("guard").sign_test(np.array([1.0, -1.0])) == 1.0


def test_the_tables_compare_the_guard_with_every_alternative(study: Callable[[str], ModuleType]) -> None:
    def arm(shift: float) -> dict[str, object]:
        scores = {name: [i + shift for i in range(8)] for name in ("colourfulness", "clip", "clip-b")}
        return {"scores": scores, "seconds": 1.0}

    arms = {"plain sampling": arm(0.0), "kl_target 2": arm(0.5), "guard": arm(0.25)}
    assert "| kl_target 2 | +0.5000 (+0.5000 to +0.5000) |" in study("guard").gain_table(arms)
    [row] = study("guard").difference_table(arms).splitlines()[2:]
    assert row.startswith("| kl_target 2 | -0.2500 (-0.2500 to -0.2500), p = 0.02")
