"""What every measure that ships must do, as every measure from outside."""

from __future__ import annotations

import pytest

from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.measures import MEASURES, Measure, known_measures
from nulltta.testing import MeasureContract


class TestMeasures(MeasureContract):
    @pytest.fixture(params=[*MEASURES, *WORLDS["embedded"].held_out, "facts"])
    def measure(self, request: pytest.FixtureRequest) -> Measure:
        return known_measures("embedded")[request.param]
