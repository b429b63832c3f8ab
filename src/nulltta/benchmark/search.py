"""`nulltta bench tune`: the tries of `tune`, sampled like any benchmark, and their outcome written to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from nulltta.baselines.catalogue import MethodSettings
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.request import Say, check_rewards, check_sampling, check_targets, measured_task
from nulltta.benchmark.run import OnRows, WorkerMachine, sample
from nulltta.benchmark.store import PLAN, BenchmarkFolder
from nulltta.benchmark.tune import RULE, chosen, grid_of, tuning_arms
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue, blaming
from nulltta.files import atomic
from nulltta.runs import record


@dataclass(frozen=True, kw_only=True)
class TuningRequest:
    """What settings are tuned for.

    Attributes:
        model: what `load_model` takes.
        targets: the rewards to raise.
        budgets: denoiser evaluations per image; settings are chosen for each target and budget.
        held_out: the measures that must not fall.
        prompts: the tuning prompts, on all of which the scale of the target is measured.
        searched: on how many of them, from the first, settings are tried.
        seeds: the draws of noise, by number.
        config: the fields of `NullTTAConfig` that differ from the model's preset.
        batch_size: how many prompts are sampled together.
        contenders: which contenders to tune; () for all that have a grid.

    Raises:
        InvalidValue: if any part is invalid.
    """

    model: str
    targets: Sequence[str]
    budgets: Sequence[int]
    held_out: Sequence[str]
    prompts: Sequence[str]
    searched: int
    seeds: Sequence[int]
    config: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    contenders: Sequence[str] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.contenders if name not in self.grid]:
            raise InvalidValue(f"'{unknown[0]}' has no settings to tune: known are {', '.join(self.grid)}", "contender")
        if self.searched < 2:
            raise InvalidValue(f"must be 2 or more, not {self.searched}", field="prompts")
        if wrong := [budget for budget in self.budgets if budget < 1]:
            raise InvalidValue(f"must be 1 or more, not {wrong[0]}", field="budget")
        if not self.held_out:
            raise InvalidValue("names the measures that must not fall: give at least one", field="held_out")
        check_sampling(self.prompts, self.seeds, self.batch_size)
        check_targets(self.model, self.targets)
        with blaming("held_out"):
            check_rewards(self.held_out)

    @property
    def grid(self) -> Mapping[str, Sequence[MethodSettings]]:
        """The tries of each contender that can be tuned for the model."""
        return grid_of(NullTTAConfig.preset(self.model, **self.config))


def search(
    asked: TuningRequest, out: Path, machine: WorkerMachine, on_plan: Callable[[Plan], OnRows], say: Say
) -> None:
    """Sample every try and write settings.json, and tuning.json with the rule and everything that was found.

    Args:
        asked: what to tune for.
        out: the folder; a search in it continues.
        machine: where to run.
        on_plan: plan -> the function that is called with finished rows.
        say: told in one line which tries the budget does not cover, and which choices lie at the edge of their grid.

    Raises:
        NullTTAError: as `sample` does.
    """
    folder = BenchmarkFolder(out)
    grid = {name: asked.grid[name] for name in asked.contenders or asked.grid}

    def make() -> tuple[Plan, dict[str, Any]]:
        torch.set_num_threads(machine.threads_each)
        config, model = NullTTAConfig.preset(asked.model, **asked.config), machine.load(asked.model)
        tasks = [measured_task(model, target, asked.prompts, config, {}) for target in asked.targets]
        arms: dict[str, Arm] = {}
        left_out: dict[str, str] = {}
        for task in tasks:
            for budget in asked.budgets:
                found, lacking = tuning_arms(task, budget, grid)
                arms |= {arm.key: arm for arm in found}
                left_out |= {f"{task.target}, {budget}, {name}": why for name, why in lacking.items()}
        plan = Plan(
            model=asked.model, prompts=asked.prompts[: asked.searched], seeds=asked.seeds,
            arms=list(arms.values()), measures=asked.held_out, batch_size=asked.batch_size, gallery=0,
        )  # fmt: skip
        return plan, {"units": {task.target: task.unit for task in tasks}, "left out": left_out}

    plan = folder.resume({**asdict(asked), "grid": grid}, make)
    sample(plan, folder, machine, on_plan(plan))
    tuned, tries = chosen(plan, folder.rows(), asked.held_out, grid)
    for each in tries:
        if edges := each.get("at the edge of the grid"):
            say(f"{each['contender']}, {each['target']}, {each['budget']}: {', '.join(edges)} is at the grid's edge")
    told = {name: part for name, part in json.loads((out / PLAN).read_text()).items() if name != "plan"}
    record.save({"rule": RULE, **told, "search": tries}, out / "tuning.json")
    with atomic(out / "settings.json") as temporary:
        temporary.write_text(json.dumps([asdict(each) for each in tuned], indent=1) + "\n")
