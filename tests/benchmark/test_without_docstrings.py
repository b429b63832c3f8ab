"""The package works without docstrings and assertions, as under `python -OO`."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import nulltta.benchmark


def test_every_module_of_the_benchmark_is_imported() -> None:
    names = [each.name for each in pkgutil.walk_packages(nulltta.benchmark.__path__, "nulltta.benchmark.")]
    assert "nulltta.benchmark.tune" in names
    code = f"import {', '.join(names)}; assert False; print(nulltta.benchmark.tune.RULE)"
    ended = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert "the highest target is chosen" in ended.stdout
