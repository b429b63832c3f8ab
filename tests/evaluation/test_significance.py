"""Tests of paired differences and their correction, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nulltta.evaluation.significance import holm, sign_test


def test_holm_multiplies_by_what_is_left_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_sign_test_of_equal_differences_is_that_of_coin_tosses() -> None:
    assert sign_test(np.ones(8)) == pytest.approx(2 / 2**8, rel=0.15)
    assert sign_test([1.0, -1.0]) == 1.0
