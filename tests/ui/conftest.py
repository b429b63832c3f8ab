from __future__ import annotations

from pathlib import Path

import pytest

from nulltta import NullTTAConfig
from nulltta.runs.request import Request
from nulltta.ui.engine import Engine


@pytest.fixture(scope="session")
def engine(checkpoint: Path) -> Engine:
    """What a page on the tiny checkpoint samples with."""
    return Engine([str(checkpoint)], "brightness", device="cpu")


@pytest.fixture
def request_of(engine: Engine, config: NullTTAConfig):  # type: ignore[no-untyped-def]
    """A short run's request, changed as asked."""

    def made(**changes: object) -> Request:
        asked = {"prompts": ["a cat"], "config": config, "reward": "brightness", "model": engine.models[0]}
        return Request(**{**asked, "save_null_text": "exact", "seed": 4, **changes})  # type: ignore[arg-type]

    return made
