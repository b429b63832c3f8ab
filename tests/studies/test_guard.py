"""The statistics of the study of what keeps a reward from being hacked."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType


def test_the_tables_compare_the_guard_with_every_alternative(study: Callable[[str], ModuleType]) -> None:
    def arm(shift: float) -> dict[str, object]:
        scores = {name: [i + shift for i in range(8)] for name in ("colourfulness", "clip", "clip-b")}
        return {"scores": scores, "seconds": 1.0}

    arms = {"plain sampling": arm(0.0), "kl_target 2": arm(0.5), "guard": arm(0.25)}
    assert "| kl_target 2 | +0.5000 (+0.5000 to +0.5000) |" in study("guard").gain_table(arms)
    [row] = study("guard").difference_table(arms).splitlines()[2:]
    assert row.startswith("| kl_target 2 | -0.2500 (-0.2500 to -0.2500), p = 0.02")
