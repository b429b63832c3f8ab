"""Choosing each contender's own settings on the tuning prompts, with the same number of tries for all (see `RULE`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nulltta.baselines.catalogue import BASELINES, NULL_TTA_FEW_STEPS, NULL_TTA_GRID, MethodSettings
from nulltta.benchmark.analysis import PLAIN, Panel, panels
from nulltta.benchmark.contenders import ContenderTask, arm
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.store import ImageRow
from nulltta.benchmark.tuned import TunedSettings
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue
from nulltta.evaluation.bootstrap import Gain

MARGIN = 0.25
"""How far below plain sampling's the held-out measures may lie, in standard deviations of plain's scores."""
RULE = (
    f"Of the settings whose 95% interval in every held-out measure lies above −{MARGIN} standard deviations of plain "
    "sampling's scores, the one with the highest target is chosen; if there is none, the one whose interval begins "
    "highest."
)
"""The bound is the interval's lower end: the fewer the prompts, the fewer settings pass. To require that the interval
reaches 0 would let more harm through, the fewer the prompts are, and the mean alone is a coin toss."""

GRID: Mapping[str, Sequence[MethodSettings]] = {
    **{name: baseline.grid for name, baseline in BASELINES.items() if baseline.grid}, "null-tta": NULL_TTA_GRID
}  # fmt: skip
"""Ten tries per contender, in units of the target's standard deviation (see `contenders.DIVIDED`)."""
FEW_STEP_GRID: Mapping[str, Sequence[MethodSettings]] = {
    **{name: baseline.few_steps for name, baseline in BASELINES.items() if baseline.few_steps},
    "null-tta": NULL_TTA_FEW_STEPS,
}
"""Five tries per contender, for a model that was distilled to few steps without classifier-free guidance."""
LIMITED = ("num_inference_steps", "eta", "num_particles", "lookahead_steps", "share")
"""Settings whose range ends for reasons other than a grid's: they are not looked at by `at_edge`."""


def grid_of(config: NullTTAConfig) -> Mapping[str, Sequence[MethodSettings]]:
    """Return the tries of each contender for a model with such a configuration."""
    return FEW_STEP_GRID if config.guidance == "nag" else GRID


def tuning_arms(
    task: ContenderTask, budget: int, grid: Mapping[str, Sequence[MethodSettings]]
) -> tuple[list[Arm], dict[str, str]]:
    """Make plain sampling, and one arm per contender and setting: "das#2" has the third settings of its grid.

    Returns:
        The arms, and the tries for which the budget is too small, with the reason.
    """
    label = f"{budget} evaluations"
    arms, left_out = [arm(PLAIN, budget, label, task)], {}
    for name, tries in grid.items():
        for number, settings in enumerate(tries):
            try:
                made = arm(name, budget, label, replace(task, settings={name: settings}))
            except InvalidValue as error:
                left_out[f"{name}#{number}"] = str(error)
            else:
                arms.append(replace(made, name=f"{name}#{number}"))
    return arms, left_out


def chosen(
    plan: Plan, rows: Sequence[ImageRow], held_out: Sequence[str], grid: Mapping[str, Sequence[MethodSettings]]
) -> tuple[list[TunedSettings], list[dict[str, Any]]]:
    """Choose settings by the rule, for each target and budget of the plan.

    Args:
        plan: the arms of `tuning_arms`.
        rows: what was sampled.
        held_out: the measures that must not fall.
        grid: the tries of each contender.

    Returns:
        The settings, and the record of every try with its gains over plain sampling.

    Raises:
        InvalidValue: if a try has images of fewer than two prompts.
    """
    tuned: list[TunedSettings] = []
    search: list[dict[str, Any]] = []
    for panel in panels(plan, rows):
        if not panel.budget:  # no try was affordable
            continue
        best: dict[str, MethodSettings] = {}
        for name, tries in grid.items():
            found = list(_tries(panel, name, tries, held_out))
            if not found:
                continue
            winner = _best(found)
            winner |= {"chosen": True, "at the edge of the grid": at_edge(winner["settings"], tries)}
            best[name] = winner["settings"]
            search += [{"target": panel.target, "budget": panel.budget, "contender": name, **each} for each in found]
        tuned.append(TunedSettings(panel.target, int(panel.budget.split()[0]), best))
    return tuned, search


def at_edge(settings: MethodSettings, tries: Sequence[MethodSettings]) -> list[str]:
    """Return the names of the settings that are the smallest or the largest of the grid, beyond which nobody looked.

    Zero and a count of 1 are not such edges, nor is a setting of which the grid has one or two values only.
    """
    found = []
    for name, value in settings.items():
        values = {each[name] for each in tries if each.get(name) is not None}
        ends = not isinstance(value, int | float) or value == 0 or (isinstance(value, int) and value <= 1)
        if name not in LIMITED and not ends and len(values) > 2 and value in (min(values), max(values)):
            found.append(name)
    return found


def _tries(
    panel: Panel, contender: str, tries: Sequence[MethodSettings], held_out: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the record of each try that was affordable."""
    for number, settings in enumerate(tries):
        name = f"{contender}#{number}"
        if name not in panel.results:
            continue
        gains = {measure: panel.gain(name, measure) for measure in (panel.target, *held_out)}
        if any(gain is None for gain in gains.values()):
            raise InvalidValue(f"'{name}' has too few images to judge it by: finish the search first")
        result = panel.results[name]
        yield {
            "settings": dict(settings), "chosen": False, "evaluations": result.cost, "seconds": result.seconds,
            "gains": {measure: asdict(gain) for measure, gain in gains.items() if gain is not None},
        }  # fmt: skip


def _best(tries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the best try by the rule; the gains of a try are in order: target, held-out measures."""

    def target(each: dict[str, Any]) -> float:
        return float(next(iter(each["gains"].values()))["mean"])

    def bound(each: dict[str, Any]) -> float:
        _, *held = (Gain(**gain) for gain in each["gains"].values())
        return min(lower_bound(gain) for gain in held)

    sound = [each for each in tries if bound(each) > -MARGIN]
    return max(sound, key=target) if sound else max(tries, key=bound)


def lower_bound(gain: Gain) -> float:
    """Return the lower end of a gain's interval in standard deviations of plain's scores; its sign's infinity where
    these do not vary."""
    if gain.in_spreads is not None:
        return gain.in_spreads[1]
    return float("-inf") if gain.low < 0 else float("inf")
