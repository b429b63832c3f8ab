"""`nulltta bench tune`: the tries of `tune`, sampled like any benchmark, and their outcome written to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from nulltta.benchmark.plan import Plan
from nulltta.benchmark.request import check_rewards, check_sampling, check_targets, measured_task
from nulltta.benchmark.run import OnRows, WorkerMachine, sample
from nulltta.benchmark.store import PLAN, BenchmarkFolder
from nulltta.benchmark.tune import GRID, RULE, chosen, tuning_arms
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue, blaming
from nulltta.files import atomic
from nulltta.runs import record


@dataclass(frozen=True, kw_only=True)
class TuningRequest:
    """What settings are tuned for.

    Attributes:
        model: what `load_model` takes.
        target: the reward to raise.
        budget: denoiser evaluations per image.
        held_out: the measure that must not fall.
        prompts: the tuning prompts, on all of which the scale of the target is measured.
        searched: on how many of them, from the first, settings are tried.
        seeds: the seeds of the noise.
        config: the fields of `NullTTAConfig` that differ from the model's preset.
        batch_size: how many prompts are sampled together.
        contenders: which contenders to tune; () for all of `GRID`.

    Raises:
        InvalidValue: if any part is invalid.
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
    contenders: Sequence[str] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.contenders if name not in GRID]:
            raise InvalidValue(f"'{unknown[0]}' has no settings to tune: known are {', '.join(GRID)}", "contender")
        if self.searched < 2:
            raise InvalidValue(f"must be 2 or more, not {self.searched}", field="prompts")
        if self.budget < 1:
            raise InvalidValue(f"must be 1 or more, not {self.budget}", field="budget")
        check_sampling(self.prompts, self.seeds, self.batch_size)
        check_targets(self.model, [self.target])
        with blaming("held_out"):
            check_rewards([self.held_out])
        NullTTAConfig.preset(self.model, **self.config)


def search(asked: TuningRequest, out: Path, machine: WorkerMachine, on_plan: Callable[[Plan], OnRows]) -> None:
    """Sample every try and write settings.json, and tuning.json with the rule and everything that was found.

    Args:
        asked: what to tune for.
        out: the folder; a search in it continues.
        machine: where to run.
        on_plan: plan -> the function that is called with finished rows.

    Raises:
        NullTTAError: as `sample` does.
    """
    folder = BenchmarkFolder(out)
    grid = {name: GRID[name] for name in asked.contenders or GRID}

    def make() -> tuple[Plan, dict[str, Any]]:
        torch.set_num_threads(machine.threads_each)
        config = NullTTAConfig.preset(asked.model, **asked.config)
        task = measured_task(machine.load(asked.model), asked.target, asked.prompts, config, {})
        plan = Plan(
            model=asked.model, prompts=asked.prompts[: asked.searched], seeds=asked.seeds,
            arms=tuning_arms(task, asked.budget, grid), measures=[asked.held_out],
            batch_size=asked.batch_size, gallery=0,
        )  # fmt: skip
        return plan, {"unit": task.unit}

    plan = folder.resume({**asdict(asked), "grid": grid}, make)
    sample(plan, folder, machine, on_plan(plan))
    best, tries = chosen(plan, folder.rows(), asked.held_out, grid)
    told = {name: part for name, part in json.loads((out / PLAN).read_text()).items() if name != "plan"}
    record.save({"rule": RULE, **told, "search": tries}, out / "tuning.json")
    with atomic(out / "settings.json") as temporary:
        temporary.write_text(json.dumps(best, indent=1) + "\n")
