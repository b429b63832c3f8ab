"""Choosing each contender's own settings on the tuning prompts, with the same number of tries for all (see `RULE`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nulltta.benchmark.analysis import PLAIN, Panel, panels
from nulltta.benchmark.contenders import ContenderTask, Settings, arm
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.store import ImageRow
from nulltta.errors import InvalidValue

RULE = (
    "Of the settings under which the held-out measure is on average not below plain sampling's, the one with the "
    "highest target is chosen; if it is below under all of them, the one under which it falls least."
)
"""Requiring an interval to reach 0 instead of the average would let more harm through, the fewer the prompts are."""

_EMBEDDING: tuple[Settings, ...] = (
    *(
        {"reward_weight": 5.0, "kl_weight": 0.002, "learning_rate": rate, "num_particles": K}
        for rate, K in (
            (0.0125, 2), (0.025, 3), (0.025, 2), (0.05, 2), (0.05, 1), (0.1, 2), (0.0125, 3), (0.00625, 2), (0.00625, 3)
        )
    ),
    {"reward_weight": 5.0, "kl_weight": 0.008, "learning_rate": 0.025, "num_particles": 2},
)  # fmt: skip

GRID: Mapping[str, Sequence[Settings]] = {
    "dps": [{"scale": scale} for scale in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 1.5, 2.0, 4.0, 5.0)],
    "das": [{"temperature": alpha} for alpha in (0.03, 0.1, 0.3, 1.0, 0.01, 0.003, 0.015, 0.02, 0.04, 0.06)],
    "fk": [
        *({"reward_weight": weight} for weight in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)),
        *({"reward_weight": weight, "potential": "max"} for weight in (1.0, 3.0, 10.0, 30.0)),
    ],
    "dno": [
        *(
            {"learning_rate": rate, "num_inference_steps": T}
            for rate, T in ((0.03, 5), (0.1, 5), (0.03, 10), (0.1, 10), (0.3, 5), (0.3, 10), (0.1, 3), (0.2, 5))
        ),
        *({"learning_rate": 0.2, "num_inference_steps": 5, "regularisation": weight} for weight in (0.1, 1.0)),
    ],
    "reno": [
        {"reward_weight": 1.0, "learning_rate": rate, "num_inference_steps": T}
        for rate, T in (
            (5.0, 5), (20.0, 5), (5.0, 10), (20.0, 10), (80.0, 5), (80.0, 10), (320.0, 5), (160.0, 5), (80.0, 3),
            (320.0, 3),
        )
    ],
    "prompt-embedding": _EMBEDDING,
    "null-tta": _EMBEDDING,
}  # fmt: skip
"""Ten tries per contender, in units of the target's standard deviation (see `contenders.DIVIDED`): six over a wide
range and four around the best of those; for the embeddings, all lie around the embedded model's preset."""


def tuning_arms(task: ContenderTask, budget: int, grid: Mapping[str, Sequence[Settings]]) -> list[Arm]:
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
    plan: Plan, rows: Sequence[ImageRow], held_out: str, grid: Mapping[str, Sequence[Settings]]
) -> tuple[dict[str, Settings], list[dict[str, Any]]]:
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
    best: dict[str, Settings] = {}
    for name, tries in grid.items():
        found = [_try(panel, f"{name}#{number}", settings, held_out) for number, settings in enumerate(tries)]
        winner = _best(found)
        winner["chosen"] = True
        best[name] = winner["settings"]
        search += [{"contender": name, **each} for each in found]
    return best, search


def _try(panel: Panel, name: str, settings: Settings, held_out: str) -> dict[str, Any]:
    """The record of one try."""
    gains = {measure: panel.gain(name, measure) for measure in (panel.target, held_out)}
    if any(gain is None for gain in gains.values()):
        raise InvalidValue(f"'{name}' has too few images to judge it by: finish the search first")
    result = panel.results[name]
    return {
        "settings": dict(settings), "chosen": False, "evaluations": result.cost, "seconds": result.seconds,
        "gains": {measure: asdict(gain) for measure, gain in gains.items() if gain is not None},
    }  # fmt: skip


def _best(tries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best try by the rule; the gains of a try are in order: target, held-out."""

    def target(each: dict[str, Any]) -> float:
        return float(next(iter(each["gains"].values()))["mean"])

    def held(each: dict[str, Any]) -> dict[str, float]:
        _, found = each["gains"].values()
        return dict(found)

    sound = [each for each in tries if held(each)["mean"] >= 0]
    return max(sound, key=target) if sound else max(tries, key=lambda each: held(each)["mean"])
