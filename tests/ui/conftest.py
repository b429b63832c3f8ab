from __future__ import annotations

from pathlib import Path

import pytest

from nulltta import NullTTAConfig
from nulltta.runs.request import AlignRequest, RunSettings
from nulltta.ui.engine import Engine


@pytest.fixture(scope="session")
def engine(checkpoint: Path) -> Engine:
    """What a page on the tiny checkpoint samples with."""
    return Engine([str(checkpoint)], "brightness", device="cpu")


@pytest.fixture
def request_of(engine: Engine, config: NullTTAConfig):  # type: ignore[no-untyped-def]
    """A short run's request, changed as asked."""

    def made(**changes: object) -> AlignRequest:
        settings = {"config": config, "reward": "brightness", "model": engine.models[0]}
        own = {"prompts": ["a cat"], "save_null_text": "exact", "seed": 4}
        shared = settings | {name: value for name, value in changes.items() if name not in own}
        asked = own | {name: value for name, value in changes.items() if name in own}
        return AlignRequest(**asked, settings=RunSettings(**shared))  # type: ignore[arg-type]

    return made
