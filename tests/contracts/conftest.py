from __future__ import annotations

from pathlib import Path

import pytest

from ..tiny_families import CHECKPOINTS


@pytest.fixture(scope="session", params=list(CHECKPOINTS))
def family(request: pytest.FixtureRequest) -> str:
    """The name of one family's tiny checkpoint."""
    return str(request.param)


@pytest.fixture(scope="session")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That checkpoint's directory."""
    return CHECKPOINTS[family](tmp_path_factory.mktemp("family") / "model")
