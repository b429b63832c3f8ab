"""The families of pipelines and their tiny checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from nulltta.testing import FamilyCase

from ..tiny_families import FAMILIES


@pytest.fixture(scope="session", params=FAMILIES.values(), ids=str)
def case(request: pytest.FixtureRequest) -> FamilyCase:
    """Return one family of pipelines."""
    found: FamilyCase = request.param
    return found


@pytest.fixture(scope="session")
def folder(case: FamilyCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the family's tiny checkpoint."""
    return case.save(tmp_path_factory.mktemp("family") / "model")
