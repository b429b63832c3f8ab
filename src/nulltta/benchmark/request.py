"""What a benchmark was asked for, and the plan that this comes to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from nulltta import rewards
from nulltta.benchmark import contenders, units
from nulltta.benchmark.calibrate import evaluations_for
from nulltta.benchmark.contenders import ContenderTask, arm
from nulltta.benchmark.measures import HELD_OUT
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.run import WorkerMachine
from nulltta.benchmark.store import BenchmarkFolder
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.embedded.grammar import test_prompts, tuning_prompts
from nulltta.errors import InvalidValue, NullTTAError

SETTINGS = Path(__file__).with_name("settings.json")
"""The contenders' settings on the embedded model, as `nulltta bench tune` chose them."""
UNIT_PROMPTS = 16

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """A benchmark, before anything is measured.

    Attributes:
        targets: rewards, by name or expression.
        trade_off, weights: two rewards, and the weights of the first in sums of both, standardised.
        budgets: an image's, in denoiser evaluations ("300") or seconds ("5s").
        contenders: names, or names of groups.
        prompts: of the reported ones.
        tuning: prompts that share nothing with them: the scale of rewards and the time of methods are measured there.
        config: fields in which T, guidance and the like differ from the model's preset.
        settings: the contenders' own, by name.
    """

    model: str = "embedded"
    targets: Sequence[str] = ("clip",)
    trade_off: Sequence[str] = ()
    weights: Sequence[float] = ()
    budgets: Sequence[str] = ("300",)
    contenders: Sequence[str] = ("rivals", "ablations")
    prompts: Sequence[str]
    tuning: Sequence[str]
    seeds: Sequence[int] = (0, 1)
    measures: Sequence[str] = ("colourfulness",)
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    batch_size: int = 8
    gallery: int = 6

    def __post_init__(self) -> None:
        if shared := set(self.prompts) & set(self.tuning):
            raise InvalidValue(f"'{min(shared)}' is a tuning prompt and a reported one: nothing may be both")
        contenders.named(list(self.contenders))
        for budget in self.budgets:
            parsed(budget)
        if self.trade_off and len(self.trade_off) != 2:
            raise InvalidValue(f"a trade-off is of two rewards, not of {len(self.trade_off)}")
        for target in (*self.targets, *self.trade_off):
            if self.model == "embedded" and HELD_OUT in rewards.load(target).name:
                raise InvalidValue(f"'{HELD_OUT}' is what targets are checked by here: choose another target")


def parsed(budget: str) -> tuple[str, float]:
    """ "300" -> ("300 evaluations", 300), "5s" -> ("5s", 5).

    Raises:
        NullTTAError: it is neither.
    """
    config = NullTTAConfig(budget=budget if budget.endswith("s") else _number(budget))
    if (seconds := config.seconds_budget) is not None:
        return budget, seconds
    if not config.evaluations_budget:
        raise InvalidValue(f"a budget is a number of denoiser evaluations, or seconds as in 20s, not {budget}")
    return f"{config.evaluations_budget} evaluations", config.evaluations_budget


def prepare(request: BenchmarkRequest, store: BenchmarkFolder, machine: WorkerMachine, say: Say) -> Plan:
    """The plan in the store, if it came of the same request; else a new one, its scales and times measured.

    Raises:
        NullTTAError: the store holds another benchmark.
    """
    return store.resume(asdict(request), lambda: made(request, machine, say))


def made(request: BenchmarkRequest, machine: WorkerMachine, say: Say) -> tuple[Plan, dict[str, Any]]:
    """The plan of a request, and what was measured for it."""
    torch.set_num_threads(machine.threads_each)
    model = machine.load(request.model)
    say("measuring the rewards' scales on plain samples of the tuning prompts")
    tasks = _tasks(request, model)
    arms: dict[str, Arm] = {}
    for task in tasks:
        for budget in request.budgets:
            for name in contenders.named(list(request.contenders)):
                try:
                    made_arm = _arm(name, budget, task, model, request.tuning)
                except NullTTAError as error:
                    say(f"left out, target {task.target}, {budget}: {error}")
                else:
                    arms.setdefault(made_arm.key, made_arm)
    plan = Plan(
        model=request.model, prompts=request.prompts, seeds=request.seeds, arms=list(arms.values()),
        measures=request.measures, batch_size=request.batch_size, gallery=request.gallery,
    )  # fmt: skip
    return plan, {"units": {task.target: task.unit for task in tasks}}


def _tasks(request: BenchmarkRequest, model: GuidedModel) -> list[ContenderTask]:
    """One a target, the sums of the trade-off last, each with its scale."""
    config = NullTTAConfig.preset(request.model, **request.config)

    def scales(names: Sequence[str]) -> dict[str, tuple[float, float]]:
        return units.scales(model, names, request.tuning[:UNIT_PROMPTS], config)

    scale = scales([*request.targets, *request.trade_off])
    if request.trade_off:
        scale |= scales(units.trade_off(request.trade_off, request.weights, scale))
    return [
        ContenderTask(
            config=config, target=target, unit=unit, differentiable=rewards.load(target).differentiable,
            settings=request.settings,
        )
        for target, (_, unit) in scale.items()
        if target not in request.trade_off or target in request.targets
    ]  # fmt: skip


def single_task(
    source: str,
    target: str,
    tuning: Sequence[str],
    config: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]],
    machine: WorkerMachine,
) -> tuple[GuidedModel, ContenderTask]:
    """A model, loaded, and the task of one target on it."""
    request = BenchmarkRequest(model=source, targets=[target], prompts=[], tuning=tuning, config=config, settings=own)
    torch.set_num_threads(machine.threads_each)
    model = machine.load(source)
    [task] = _tasks(request, model)
    return model, task


def _arm(name: str, budget: str, task: ContenderTask, model: GuidedModel, tuning: Sequence[str]) -> Arm:
    label, amount = parsed(budget)
    evaluations = evaluations_for(amount, name, task, model, tuning) if budget.endswith("s") else int(amount)
    return arm(name, evaluations, label, task)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidValue(f"a budget is a number of denoiser evaluations, or seconds as in 20s, not {text}") from None


def embedded_prompts(count: int) -> tuple[list[str], list[str]]:
    """The reported prompts and the tuning prompts of the embedded world."""
    return test_prompts(count), tuning_prompts(UNIT_PROMPTS)


def settings(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """The contenders' settings of a file that `nulltta bench tune` wrote; of none, those that ship."""
    try:
        found = json.loads((path or SETTINGS).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or any(not isinstance(each, dict) for each in found.values()):
            raise ValueError("it is not {contender: {setting: value}}")
    except (OSError, ValueError) as error:
        raise InvalidValue(f"cannot read settings from '{path}': {error}") from error
    return found
