"""The contract of methods, on every method of the package."""

from __future__ import annotations

from typing import Any

import pytest

from nulltta.alignment import METHODS
from nulltta.testing import MethodContract


class TestMethods(MethodContract):
    @pytest.fixture(params=METHODS)
    def method(self, request: pytest.FixtureRequest) -> Any:
        return request.param
