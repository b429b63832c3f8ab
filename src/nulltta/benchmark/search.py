"""`nulltta bench tune`: the search of `tune`, sampled like any benchmark, and its outcome written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nulltta.benchmark.plan import Plan
from nulltta.benchmark.request import single_task
from nulltta.benchmark.run import OnRows, WorkerMachine, sample
from nulltta.benchmark.store import PLAN, BenchmarkFolder
from nulltta.benchmark.tune import GRID, RULE, chosen, tuning_arms
from nulltta.files import atomic
from nulltta.runs import record


@dataclass(frozen=True, kw_only=True)
class TuningRequest:
    """What is tuned for: see `nulltta bench tune --help`.

    prompts: the tuning prompts, on all of which the target's scale is measured.
    searched: on how many of them, the first ones, settings are tried.
    """

    model: str
    target: str
    budget: int
    held_out: str
    prompts: Sequence[str]
    searched: int
    seeds: Sequence[int]
    config: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 8


def search(asked: TuningRequest, out: Path, machine: WorkerMachine, on_plan: Callable[[Plan], OnRows]) -> None:
    """Sample every try and write settings.json, and tuning.json with the rule and all that was found."""
    store = BenchmarkFolder(out)

    def made() -> tuple[Plan, dict[str, Any]]:
        _, task = single_task(asked.model, asked.target, asked.prompts, asked.config, {}, machine)
        plan = Plan(
            model=asked.model, prompts=asked.prompts[: asked.searched], seeds=asked.seeds,
            arms=tuning_arms(task, asked.budget, GRID), measures=[asked.held_out],
            batch_size=asked.batch_size, gallery=0,
        )  # fmt: skip
        return plan, {"unit": task.unit}

    plan = store.resume({**asdict(asked), "grid": GRID}, made)
    sample(plan, store, machine, on_plan(plan))
    best, tries = chosen(plan, store.rows(), asked.held_out, GRID)
    told = {name: part for name, part in json.loads((out / PLAN).read_text()).items() if name != "plan"}
    record.save({"rule": RULE, **told, "search": tries}, out / "tuning.json")
    with atomic(out / "settings.json") as temporary:
        temporary.write_text(json.dumps(best, indent=1) + "\n")
