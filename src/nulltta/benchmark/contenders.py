"""Who competes, and what each does with a budget of denoiser evaluations.

A forward pass of one branch counts 1, forward and back 2. With T denoising steps a plain sample costs 2T, so a budget
of B makes N = B/2T samples of best-of-N and particles of FK steering, B/4T particles of DAS and runs of DPS, and
(B − 2T)/6T iterations of DNO and ReNO, whose checkpointed steps are computed twice and differentiated once. Null-TTA
and its kin take as many inner steps as the budget leaves beside their candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nulltta.algorithm.budget import spent
from nulltta.benchmark.plan import Arm
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue

Settings = Mapping[str, Any]

DIVIDED, MULTIPLIED = ("scale", "reward_weight"), ("temperature", "regularisation")
"""Settings in the reward's unit: they are kept as if the target's standard deviation over plain samples were 1."""


@dataclass(frozen=True, kw_only=True)
class ContenderTask:
    """What the contenders are set, besides a budget.

    Attributes:
        config: T, guidance and all else that the methods share.
        target: a reward, by name or expression.
        unit: the standard deviation of its values over plain samples of the tuning prompts.
        differentiable: whether it gives a gradient.
        settings: each contender's own, as tuned, in `unit`s; see `DIVIDED`.
    """

    config: NullTTAConfig
    target: str
    unit: float = 1.0
    differentiable: bool = True
    settings: Mapping[str, Settings] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, Any]:
        """A contender's settings in the reward's own unit."""
        return in_unit(self.settings.get(name, {}), self.unit)


Make = Callable[[int, ContenderTask], Arm]


@dataclass(frozen=True)
class Contender:
    """How a method spends a budget.

    Attributes:
        make: (budget in evaluations, task) -> arm; refuses a budget that does not reach.
        about: what it is, in a few words.
        needs_gradient: it cannot raise a reward that has none.
        fixed: its cost is its own, whatever the budget.
    """

    make: Make
    about: str
    needs_gradient: bool = False
    fixed: bool = False


def in_unit(settings: Settings, unit: float) -> dict[str, Any]:
    """Settings stated for a reward of standard deviation 1, for one of standard deviation `unit`."""
    found = dict(settings)
    for name in DIVIDED:
        if name in found:
            found[name] = found[name] / unit
    for name in MULTIPLIED:
        if name in found:
            found[name] = found[name] * unit
    return found


def filled(config: NullTTAConfig, budget: int) -> NullTTAConfig:
    """The configuration with as many inner steps as a budget affords: n_min and n_max multiplied until they exceed
    it, then cut to it in proportion.

    Raises:
        NullTTAError: the budget does not cover one inner step, or there are none to multiply.
    """
    n_min, n_max = config.inner_steps
    if n_max == 0:
        raise InvalidValue("inner_steps (0, 0) cannot be multiplied to fill a budget")
    times = 1
    while spent(replace(config, inner_steps=(n_min * times, n_max * times), budget=0)) < budget:
        times += 1
    config = replace(config, inner_steps=(n_min * times, n_max * times), budget=budget)
    if spent(config) == spent(replace(config, inner_steps=(0, 0))):
        raise InvalidValue(f"a budget of {budget} denoiser evaluations leaves no inner step beside the candidates")
    return config


def _sampler(method: str, field_name: str, branch: int) -> Make:
    """A method of `field_name` samples or particles, each of 2T evaluations that cost `branch`."""

    def make(budget: int, task: ContenderTask) -> Arm:
        count = _count(method, budget, each=2 * task.config.num_inference_steps * branch)
        return _arm(method, task, settings={**task.of(method), field_name: count})

    return make


def _dps(budget: int, task: ContenderTask) -> Arm:
    runs = _count("dps", budget, each=4 * task.config.num_inference_steps)
    return replace(_arm("dps", task, settings=task.of("dps")), samples=runs)


def _iterated(method: str) -> Make:
    """DNO or ReNO, whose own T may be smaller: n iterations of 2T evaluations, each made twice and differentiated."""

    def make(budget: int, task: ContenderTask) -> Arm:
        settings = task.of(method)
        T = settings.pop("num_inference_steps", task.config.num_inference_steps)
        iterations = _count(method, budget, each=6 * T, once=2 * T)
        config = replace(task.config, num_inference_steps=T)
        return _arm(method, replace(task, config=config), settings={**settings, "iterations": iterations})

    return make


def _null_tta(method: str = "null-tta", tuned_as: str = "null-tta", **changes: Any) -> Make:
    """Null-TTA or its kin, with the settings of `tuned_as` but for some changes."""

    def make(budget: int, task: ContenderTask) -> Arm:
        config = replace(task.config, **{**task.of(tuned_as), **changes}).resolved(differentiable=task.differentiable)
        if config.gradient != "autograd" and "reward_weight" in task.of(tuned_as):
            config = replace(config, reward_weight=config.reward_weight / 2)  # as published: 50 against 100
        return _arm(method, replace(task, config=filled(config, budget - _second_pass(method, config))))

    return make


def _selection(budget: int, task: ContenderTask) -> Arm:
    """Null-TTA without inner steps: all of the budget goes to candidates."""
    T = task.config.num_inference_steps
    config = replace(task.config, inner_steps=(0, 0), num_particles=_count("selection", budget, each=2 * T))
    return _arm("null-tta", replace(task, config=config.resolved(differentiable=task.differentiable)))


def _second_pass(method: str, config: NullTTAConfig) -> int:
    """What a shared null text costs beyond Null-TTA."""
    T, K = config.num_inference_steps, config.num_particles
    return 2 * K * T + T if method == "shared-null" else 0


def _plain(budget: int, task: ContenderTask) -> Arm:  # noqa: ARG001 - the same at any
    return _arm("plain", task)


def _arm(method: str, task: ContenderTask, settings: Settings | None = None) -> Arm:
    return Arm(name=method, target=task.target, method=method, settings=settings or {}, config=asdict(task.config))


def _count(name: str, budget: int, each: int, once: int = 0) -> int:
    """How many times `each` fits, beside what is spent once."""
    if budget < once + each:
        raise InvalidValue(f"{name} takes {once + each} denoiser evaluations or more, not {budget}")
    return (budget - once) // each


RIVALS: Mapping[str, Contender] = {
    "plain": Contender(_plain, "ordinary sampling", fixed=True),
    "best-of-n": Contender(_sampler("best-of-n", "samples", 1), "N plain samples, the best"),
    "dps": Contender(_dps, "reward gradient at each step; the best of k runs", needs_gradient=True),
    "das": Contender(_sampler("das", "particles", 2), "SMC with reward gradients", needs_gradient=True),
    "fk": Contender(_sampler("fk", "particles", 1), "SMC by Feynman-Kac potentials"),
    "dno": Contender(_iterated("dno"), "all of the sampler's noise optimised", needs_gradient=True),
    "reno": Contender(_iterated("reno"), "the initial noise optimised", needs_gradient=True),
    "prompt-embedding": Contender(
        _null_tta("prompt-embedding", "prompt-embedding"), "the prompt's embedding in the null text's place"
    ),
    "null-tta": Contender(_null_tta(), "the null text optimised at each step"),
}

ABLATIONS: Mapping[str, Contender] = {
    "selection": Contender(_selection, "no inner steps: the best of K candidates at each step"),
    "one-candidate": Contender(_null_tta(num_particles=1), "K = 1: nothing to choose from"),
    "no-consistency": Contender(_null_tta(regularisers="prior"), "without the consistency term"),
    "no-prior": Contender(_null_tta(regularisers="consistency"), "without the prior term"),
    "no-regulariser": Contender(_null_tta(kl_weight=0.0), "λ2 = 0"),
    "every-step": Contender(_null_tta(optimise_between=(0.0, 1.0)), "inner steps at all denoising steps"),
    "zeroth-order": Contender(_null_tta(gradient="zeroth-order"), "without the reward's gradient"),
    "shared-null": Contender(
        _null_tta("shared-null", num_particles=1), "one null text for all steps, K = 1 in both passes"
    ),
}

SWEEPS: Mapping[str, Contender] = {
    f"{prefix}-{value}": Contender(_null_tta(**dict[str, Any]({field_name: value})), f"{symbol} = {value}")
    for prefix, field_name, symbol, values in (
        ("candidates", "num_particles", "K", (2, 4, 8)),
        ("annealing", "annealing", "γ", (0.0, 0.008, 0.064)),
        ("kl-weight", "kl_weight", "λ2", (0.0005, 0.002, 0.008, 0.032)),
        ("learning-rate", "learning_rate", "learning rate", (0.005, 0.01, 0.02, 0.04)),
    )
    for value in values
} | {
    f"inner-steps-1-{end}": Contender(_null_tta(inner_steps=(1, end)), f"n_min : n_max = 1 : {end}")
    for end in (1, 3, 9)
}  # fmt: skip

CONTENDERS: Mapping[str, Contender] = {**RIVALS, **ABLATIONS, **SWEEPS}
GROUPS: Mapping[str, Mapping[str, Contender]] = {"rivals": RIVALS, "ablations": ABLATIONS, "sweeps": SWEEPS}


def named(names: list[str]) -> list[str]:
    """Contenders of names and of groups' names, in order, each once.

    Raises:
        NullTTAError: a name is none.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in CONTENDERS and name not in GROUPS:
            raise InvalidValue(f"unknown contender '{name}': known are {', '.join((*GROUPS, *CONTENDERS))}")
        found |= dict.fromkeys(GROUPS.get(name, (name,)))
    return list(found)


def arm(name: str, budget: int, label: str, task: ContenderTask) -> Arm:
    """The contender's arm at a budget; a fixed one's has no budget.

    Raises:
        NullTTAError: the budget does not reach, or the target gives no gradient and the contender needs one.
    """
    contender = CONTENDERS[name]
    if contender.needs_gradient and not task.differentiable:
        raise InvalidValue(f"{name} needs a reward with a gradient, which '{task.target}' has not")
    return replace(contender.make(budget, task), name=name, budget="" if contender.fixed else label)
