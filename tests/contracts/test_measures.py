"""What every measure that ships must do, as every measure from outside."""

from __future__ import annotations

import pytest

from nulltta.evaluation.measures import MEASURES, Measure
from nulltta.testing import MeasureContract


class TestMeasures(MeasureContract):
    @pytest.fixture(params=MEASURES)
    def measure(self, request: pytest.FixtureRequest) -> Measure:
        return MEASURES[request.param].load(None)
