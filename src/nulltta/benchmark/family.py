"""The family of all comparisons that a report makes, each tested and corrected for their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from nulltta.benchmark.analysis import OURS, PLAIN, Panel
from nulltta.benchmark.contenders import ABLATIONS, RIVALS, SWEEPS
from nulltta.evaluation.significance import holm, sign_tests

Verdict = Literal["win", "tie", "loss"]
LEVEL = 0.05
"""The adjusted p-value below which a difference counts."""
DRAWS_PER_COMPARISON = 200
"""Random signs per comparison of a family; the smallest adjusted p-value that can be found is 1 over this number."""

_Comparison = tuple[int, str, str, str]  # the panel's id, the contender, the measure, what it is compared with


class ComparisonFamily:
    """The p-values of all comparisons of some panels, adjusted by Holm's method.

    These are, in every measure: each contender against plain sampling, Null-TTA against each rival, and each ablation
    and sweep against Null-TTA.

    Args:
        panels: all panels of a report.
    """

    def __init__(self, panels: Sequence[Panel]) -> None:
        self._panels = panels  # keeps the ids valid
        differences = {
            (id(panel), *pair): values
            for panel in panels
            for pair in _pairs(panel)
            if len(values := panel.differences(*pair)) > 1
        }
        p_values = _sign_tests(differences)
        self._adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))

    def __len__(self) -> int:
        """Return the number of comparisons."""
        return len(self._adjusted)

    def p(self, panel: Panel, name: str, measure: str, over: str = PLAIN) -> float:
        """Return the adjusted p-value of a contender's difference from another one; 1 if there is none."""
        return self._adjusted.get((id(panel), name, measure, over), 1.0)

    def verdict(self, panel: Panel, name: str, measure: str, over: str = PLAIN) -> Verdict:
        """Return "win" or "loss" if the adjusted p-value is below `LEVEL`, else "tie"."""
        gain = panel.gain(name, measure, over)
        if gain is None or self.p(panel, name, measure, over) >= LEVEL:
            return "tie"
        return "win" if gain.mean > 0 else "loss"


def _sign_tests(differences: Mapping[_Comparison, Sequence[float]]) -> dict[_Comparison, float]:
    """Return the p-value of each comparison, from enough draws for the smallest to survive the correction.

    A p-value is at least 1/(1 + draws), and Holm's method multiplies the smallest by the number of comparisons.
    """
    draws = max(20_000, DRAWS_PER_COMPARISON * len(differences))
    by_length: dict[int, list[_Comparison]] = {}
    for key, values in differences.items():
        by_length.setdefault(len(values), []).append(key)
    found = {
        key: p
        for keys in by_length.values()
        for key, p in zip(keys, sign_tests(np.array([differences[key] for key in keys]).T, draws), strict=True)
    }
    return {key: float(found[key]) for key in differences}


def _pairs(panel: Panel) -> Iterable[tuple[str, str, str]]:
    """Yield (contender, measure, the contender it is compared with)."""
    for measure in panel.measures:
        for name in panel.results:
            if name != PLAIN:
                yield name, measure, PLAIN
            if OURS in panel.results and name in RIVALS and name not in (OURS, PLAIN):
                yield OURS, measure, name
            if OURS in panel.results and (name in ABLATIONS or name in SWEEPS):
                yield name, measure, OURS
