"""Load studies, which are scripts, by their paths."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="session")
def study() -> Callable[[str], ModuleType]:
    """Return a function that loads a study by name, as a module that no import statement can name."""

    def load(name: str) -> ModuleType:
        unimportable = f"study:{name}"
        if unimportable not in sys.modules:
            spec = importlib.util.spec_from_file_location(unimportable, STUDIES / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            sys.modules[unimportable] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return sys.modules[unimportable]

    return load
