"""A page on the tiny checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from nulltta import NullTTAConfig
from nulltta.runs.request import AlignRequest, RunSettings
from nulltta.ui.engine import PageEngine

from . import fragile


@pytest.fixture(scope="session")
def engine(checkpoint: Path) -> PageEngine:
    """Return the engine of a page on the tiny checkpoint."""
    return PageEngine([str(checkpoint)], f"brightness + 0*{fragile.NAME}", device="cpu")


@pytest.fixture
def request_of(engine: PageEngine, config: NullTTAConfig):  # type: ignore[no-untyped-def]
    """Return a function that makes requests of short runs, with changes."""

    def made(**changes: object) -> AlignRequest:
        settings = {"config": config, "reward": "brightness", "model": engine.models[0]}
        own = {"prompts": ["a cat"], "save_null_text": "exact", "seed": 4, "own_seeds": (), "prompts_file": None}
        shared = settings | {name: value for name, value in changes.items() if name not in own}
        asked = own | {name: value for name, value in changes.items() if name in own}
        return AlignRequest(**asked, settings=RunSettings(**shared))  # type: ignore[arg-type]

    return made
