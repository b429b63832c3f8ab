"""Choosing each contender's own settings on the tuning prompts, with the same number of tries for all (see `RULE`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nulltta.baselines.catalogue import BASELINES, EMBEDDING_GRID, MethodSettings
from nulltta.benchmark.analysis import PLAIN, Panel, panels
from nulltta.benchmark.contenders import ContenderTask, arm
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.store import ImageRow
from nulltta.errors import InvalidValue

RULE = (
    "Of the settings under which the held-out measure is on average not below plain sampling's, the one with the "
    "highest target is chosen; if it is below under all of them, the one under which it falls least."
)
"""Requiring an interval to reach 0 instead of the average would let more harm through, the fewer the prompts are."""

GRID: Mapping[str, Sequence[MethodSettings]] = {
    **{name: baseline.grid for name, baseline in BASELINES.items() if baseline.grid}, "null-tta": EMBEDDING_GRID
}  # fmt: skip
"""Ten tries per contender, in units of the target's standard deviation (see `contenders.DIVIDED`)."""


def tuning_arms(task: ContenderTask, budget: int, grid: Mapping[str, Sequence[MethodSettings]]) -> list[Arm]:
    """Make plain sampling, and one arm per contender and setting: "das#2" has the third settings of its grid."""
    label = f"{budget} evaluations"
    return [
        arm(PLAIN, budget, label, task),
        *(
            replace(arm(name, budget, label, replace(task, settings={name: settings})), name=f"{name}#{number}")
            for name, tries in grid.items()
            for number, settings in enumerate(tries)
        ),
    ]


def chosen(
    plan: Plan, rows: Sequence[ImageRow], held_out: str, grid: Mapping[str, Sequence[MethodSettings]]
) -> tuple[dict[str, MethodSettings], list[dict[str, Any]]]:
    """Choose settings by the rule.

    Args:
        plan: the arms of `tuning_arms`.
        rows: what was sampled.
        held_out: the measure that must not fall.
        grid: the tries of each contender.

    Returns:
        The settings by contender, and the record of every try with its gains over plain sampling.

    Raises:
        InvalidValue: if a try has images of fewer than two prompts.
    """
    [panel] = panels(plan, rows)
    search: list[dict[str, Any]] = []
    best: dict[str, MethodSettings] = {}
    for name, tries in grid.items():
        found = [_try(panel, f"{name}#{number}", settings, held_out) for number, settings in enumerate(tries)]
        winner = _best(found)
        winner["chosen"] = True
        best[name] = winner["settings"]
        search += [{"contender": name, **each} for each in found]
    return best, search


def _try(panel: Panel, name: str, settings: MethodSettings, held_out: str) -> dict[str, Any]:
    """Return the record of one try."""
    gains = {measure: panel.gain(name, measure) for measure in (panel.target, held_out)}
    if any(gain is None for gain in gains.values()):
        raise InvalidValue(f"'{name}' has too few images to judge it by: finish the search first")
    result = panel.results[name]
    return {
        "settings": dict(settings), "chosen": False, "evaluations": result.cost, "seconds": result.seconds,
        "gains": {measure: asdict(gain) for measure, gain in gains.items() if gain is not None},
    }  # fmt: skip


def _best(tries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the best try by the rule; the gains of a try are in order: target, held-out."""

    def target(each: dict[str, Any]) -> float:
        return float(next(iter(each["gains"].values()))["mean"])

    def held(each: dict[str, Any]) -> dict[str, float]:
        _, found = each["gains"].values()
        return dict(found)

    sound = [each for each in tries if held(each)["mean"] >= 0]
    return max(sound, key=target) if sound else max(tries, key=lambda each: held(each)["mean"])
