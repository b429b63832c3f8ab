"""Tests of paired differences and their correction, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nulltta.evaluation.significance import holm, sign_test, sign_tests


def test_holm_multiplies_by_what_is_left_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_sign_test_of_equal_differences_is_that_of_coin_tosses() -> None:
    assert sign_test(np.ones(8)) == pytest.approx(2 / 2**8, rel=0.15)
    assert sign_test([1.0, -1.0]) == 1.0


def test_several_sign_tests_are_those_of_each_alone() -> None:
    differences = np.random.default_rng(1).normal(0.2, 1.0, size=(12, 3))
    together = sign_tests(differences, draws=15_000)
    assert together.tolist() == [sign_test(column, draws=15_000) for column in differences.T]
