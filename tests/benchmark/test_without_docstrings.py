"""The package works without docstrings and assertions, as under `python -OO`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType

import pytest

import nulltta.benchmark


def test_every_module_of_the_benchmark_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [each.name for each in pkgutil.walk_packages(nulltta.benchmark.__path__, "nulltta.benchmark.")]
    assert "nulltta.benchmark.tune" in names

    def stripped(loader: SourceFileLoader, name: str) -> CodeType:
        return compile(loader.get_data(loader.path), loader.path, "exec", dont_inherit=True, optimize=2)

    monkeypatch.setattr(SourceFileLoader, "get_code", stripped)
    monkeypatch.setattr(nulltta, "benchmark", nulltta.benchmark)  # importing it anew replaces it
    for name in [name for name in sys.modules if name.startswith("nulltta.benchmark")]:
        monkeypatch.delitem(sys.modules, name)
    modules = {name: importlib.import_module(name) for name in names}
    assert not any(module.__doc__ for module in modules.values())
    assert "the highest target is chosen" in modules["nulltta.benchmark.tune"].RULE
    for name in [name for name in sys.modules if name.startswith("nulltta.benchmark")]:
        monkeypatch.delitem(sys.modules, name)
