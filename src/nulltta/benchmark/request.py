"""What a benchmark is asked for, and the plan that follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from nulltta import rewards
from nulltta.benchmark import contenders, units
from nulltta.benchmark.contenders import ContenderTask, arm
from nulltta.benchmark.difficulty import plain_rates
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.run import WorkerMachine
from nulltta.benchmark.store import BenchmarkFolder
from nulltta.benchmark.timing import TIMED_STEPS, evaluations_for
from nulltta.benchmark.tuned import TunedSettings, nearest
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import InvalidValue, NullTTAError, blaming
from nulltta.models.nag import with_guidance
from nulltta.rewards.expression import names, parse

UNIT_PROMPTS = 24

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """What a benchmark is asked for. Everything is checked here, before a model or a reward is loaded.

    Attributes:
        model: what `load_model` takes.
        targets: rewards to raise, by name or expression.
        trade_off: two rewards whose standardised sums are targets too; or none.
        weights: the weights of the first of them, between 0 and 1.
        budgets: budgets per image, in denoiser evaluations ("300") or seconds ("5s").
        contenders: names of contenders or of groups.
        prompts: the prompts that are reported on.
        tuning: prompts that share nothing with them, on which scales and times are measured.
        seeds: the draws of noise, by number.
        measures: rewards to measure besides.
        config: the fields of `NullTTAConfig` that differ from the model's preset.
        settings: the contenders' own settings, one record per target and budget, as `TunedSettings` has them.
        fitted: files of fitted null texts, for the contenders that sample under one.
        batch_size: how many prompts are sampled together.
        gallery: for how many prompts pictures are kept.

    Raises:
        InvalidValue: if any part is invalid.
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
    settings: Sequence[TunedSettings] = ()
    fitted: Sequence[str] = ()
    batch_size: int = 8
    gallery: int = 6

    def __post_init__(self) -> None:
        if not self.prompts:
            raise InvalidValue("a benchmark without prompts has nothing to sample")
        if shared := set(self.prompts) & set(self.tuning):
            raise InvalidValue(f"'{min(shared)}' is a tuning prompt and a reported one: nothing may be both")
        check_sampling(self.tuning, self.seeds, self.batch_size)
        if self.gallery < 0:
            raise InvalidValue(f"must be 0 or more, not {self.gallery}", field="gallery")
        contenders.named(self.contenders)
        for budget in self.budgets:
            parsed(budget)
        if self.trade_off and len(self.trade_off) != 2:
            raise InvalidValue(f"takes two rewards, not {len(self.trade_off)}", field="trade_off")
        if wrong := [weight for weight in self.weights if not 0 <= weight <= 1]:
            raise InvalidValue(f"must lie between 0 and 1, not {wrong[0]:g}", field="weight")
        check_targets(self.model, self.targets)
        check_targets(self.model, self.trade_off, "trade_off")
        with blaming("measure"):
            check_rewards(self.measures)
        NullTTAConfig.preset(self.model, **self.config)


def check_sampling(tuning: Sequence[str], seeds: Collection[int], batch_size: int) -> None:
    """Refuse tuning prompts, seeds and batch sizes that nothing can be sampled with.

    Raises:
        InvalidValue: if one of them is too few or too small.
    """
    if len(tuning) < 2:
        raise InvalidValue("the scale of a reward is measured on two or more tuning prompts")
    if not seeds:
        raise InvalidValue("must be 1 or more, not 0", field="seeds")
    if batch_size < 1:
        raise InvalidValue(f"must be 1 or more, not {batch_size}", field="batch_size")


def check_targets(model: str, targets: Sequence[str], argument: str = "target") -> None:
    """Refuse targets of an argument that are unknown, or that contain a held-out scorer of the model's own world.

    Raises:
        InvalidValue: if there is one.
    """
    with blaming(argument):
        check_rewards(targets)
    held_out = WORLDS[model].held_out if model in WORLDS else ()
    for target in targets:
        if found := [name.word for name in names(parse(target)) if name.word in held_out]:
            raise InvalidValue(f"'{found[0]}' is a held-out measure of all targets: choose another target", argument)


def check_rewards(expressions: Sequence[str]) -> None:
    """Refuse malformed expressions and unknown rewards, without loading any weights.

    Raises:
        InvalidValue: if there is one; the message lists the known ones.
    """
    for expression in expressions:
        for name in names(parse(expression)):
            if name.word not in rewards.REWARDS:
                rewards.load(str(name))  # raises, or imports the user's own function


def parsed(budget: str) -> tuple[str, float]:
    """Read a budget: "300" -> ("300 evaluations", 300), "5s" -> ("5s", 5).

    Raises:
        InvalidValue: if it is neither a number of evaluations nor of seconds.
    """
    seconds = budget.endswith("s")
    try:
        amount = float(budget.removesuffix("s"))
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf or not (seconds or amount.is_integer()):
        raise InvalidValue(f"must be a number of denoiser evaluations, or seconds as in 20s, not {budget}", "budget")
    return (budget, amount) if seconds else (f"{int(amount)} evaluations", amount)


def prepare(request: BenchmarkRequest, folder: BenchmarkFolder, machine: WorkerMachine, say: Say) -> Plan:
    """Return the plan in the folder if it comes from the same request, else a new one, after measuring scales and
    times.

    Args:
        request: what is asked for.
        folder: where the plan is kept.
        machine: where the measuring runs.
        say: told in one line what is measured and which contenders are left out.

    Raises:
        InvalidValue: if the folder holds another benchmark.
    """
    asked = {**asdict(request), "dtype": machine.dtype}
    return folder.resume(asked, lambda: make_plan(request, machine, say))


def make_plan(request: BenchmarkRequest, machine: WorkerMachine, say: Say) -> tuple[Plan, dict[str, Any]]:
    """Make the plan of a request; also returns what was measured for it."""
    torch.set_num_threads(machine.threads_each)
    model = machine.load(request.model)
    say("measuring the rewards' scales on plain samples of the tuning prompts")
    tasks = _tasks(request, model)
    arms: dict[str, Arm] = {}
    for task in tasks:
        for budget in request.budgets:
            for name in contenders.named(request.contenders):
                try:
                    made = _arm(name, budget, task, request, model)
                except NullTTAError as error:
                    say(f"left out: {name}, target {task.target}, {budget}: {error}")
                else:
                    arms.setdefault(made.key, made)
    plan = Plan(
        model=request.model, prompts=request.prompts, seeds=request.seeds, arms=list(arms.values()),
        measures=request.measures, batch_size=request.batch_size, gallery=request.gallery,
    )  # fmt: skip
    measured: dict[str, Any] = {"units": {task.target: task.unit for task in tasks}}
    if request.model in WORLDS:
        say("measuring how often plain sampling gets each prompt right, in other draws of noise")
        measured["plain rates"] = plain_rates(model, request.prompts, tasks[0].config, request.batch_size)
    return plan, measured


def _tasks(request: BenchmarkRequest, model: GuidedModel) -> list[ContenderTask]:
    """Return one task per target with its scale, the sums of the trade-off last."""
    config = NullTTAConfig.preset(request.model, **request.config)
    tuning = request.tuning[:UNIT_PROMPTS]
    scale = units.scales(model, [*request.targets, *request.trade_off], tuning, config)
    if request.trade_off:
        scale |= units.scales(model, units.trade_off(request.trade_off, request.weights, scale), tuning, config)
    return [
        replace(_task(model, target, unit, config), fitted=request.fitted)
        for target, (_, unit) in scale.items()
        if target not in request.trade_off or target in request.targets
    ]


def _task(model: GuidedModel, target: str, unit: float, config: NullTTAConfig) -> ContenderTask:
    """Return the task of a target whose scale is known."""
    differentiable, guided = rewards.load(target).differentiable, with_guidance(model, config)
    _, null = guided.encode(["a picture"], [""])
    crossed = guided.crossed(null)
    return ContenderTask(config=config, target=target, unit=unit, differentiable=differentiable, crossed=crossed)


def measured_task(
    model: GuidedModel,
    target: str,
    tuning: Sequence[str],
    config: NullTTAConfig,
    settings: Mapping[str, Mapping[str, Any]],
) -> ContenderTask:
    """Return the task of one target, after measuring its scale on the tuning prompts."""
    _, unit = units.scales(model, [target], tuning[:UNIT_PROMPTS], config)[target]
    return replace(_task(model, target, unit, config), settings=settings)


def _arm(name: str, budget: str, task: ContenderTask, request: BenchmarkRequest, model: GuidedModel) -> Arm:
    """Return the contender's arm with the settings for its target and budget; one in seconds is converted by timing."""
    label, amount = parsed(budget)

    def at(evaluations: float) -> ContenderTask:
        tuned = nearest(request.settings, task.target, evaluations)
        return task if tuned is None else replace(task, settings=tuned.settings)

    if budget.endswith("s"):
        timed = at(TIMED_STEPS * task.config.num_inference_steps)
        amount = evaluations_for(amount, name, timed, model, request.tuning)
    return arm(name, int(amount), label, at(amount))


def world_prompts(model: str, count: int) -> tuple[list[str], list[str]]:
    """Return the first `count` reported prompts and the tuning prompts of an embedded model.

    Raises:
        InvalidValue: if the count is below 1.
    """
    if count < 1:
        raise InvalidValue(f"must be 1 or more, not {count}", field="prompts")
    world = WORLDS[model]
    return world.test_prompts(count), world.tuning_prompts(UNIT_PROMPTS)
