"""The contenders, and how each spends a budget of denoiser evaluations.

A forward pass of one branch counts 1, a forward and a backward pass count 2. With T denoising steps a plain sample
costs 2T, or T where a model was distilled to need no guidance, and a method of `nulltta.baselines` buys with a budget
B the largest n of which its cost each·n + once is at most B. Null-TTA and its variants take as many inner steps as the
budget leaves beside their candidates. Every contender may have its own T and η among its settings, as any other field
of `NullTTAConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from nulltta.algorithm.budget import spent
from nulltta.baselines.catalogue import BASELINES, Baseline, Cost, MethodSettings
from nulltta.benchmark.noise_network import about_network
from nulltta.benchmark.plan import FITTED, MOVED_NOISE, Arm
from nulltta.config import FormName, NullTTAConfig
from nulltta.errors import InvalidValue, LoadError
from nulltta.null_text.fitted import FittedNullText

DIVIDED, MULTIPLIED = ("scale", "reward_weight"), ("temperature", "regularisation")
"""Settings in the unit of the reward; they are stored as if the target's standard deviation over plain samples were
1."""
RUNS = "runs"
"""A setting of Null-TTA: the number of runs that share the budget equally, of which the best image is kept."""


@dataclass(frozen=True, kw_only=True)
class ContenderTask:
    """What the contenders have to do, besides the budget.

    Attributes:
        config: T, guidance and everything else that the methods share; those that move no null text sample without the
            guidance that is there for its sake (`NullTTAConfig.without_null_text`).
        target: the reward, by name or expression.
        unit: the standard deviation of the reward over plain samples of the tuning prompts.
        differentiable: whether the reward gives a gradient.
        settings: each contender's own settings, as tuned, in `unit`s; see `DIVIDED`.
        crossed: whether the model takes one branch for a prediction under NAG (`GuidedModel.crossed`).
        fitted: files that `nulltta fit` or `studies/hyper_noise.py` wrote, of which the contenders take those that were
            learnt for the target.
    """

    config: NullTTAConfig
    target: str
    unit: float = 1.0
    differentiable: bool = True
    settings: Mapping[str, MethodSettings] = field(default_factory=dict)
    crossed: bool = False
    fitted: Sequence[str] = ()

    def of(self, name: str) -> dict[str, Any]:
        """Return the settings of a contender in the reward's own unit."""
        return in_unit(self.settings.get(name, {}), self.unit)


MakeArm = Callable[[int, ContenderTask], Arm]
"""(budget in evaluations, task) -> arm; raises InvalidValue for a budget that is too small."""


@dataclass(frozen=True)
class Contender:
    """How a method spends a budget.

    Attributes:
        make: makes the arm.
        about: what the contender is, in a few words.
        needs_gradient: whether it can raise only a reward that gives a gradient.
        fixed: whether its cost does not depend on the budget.
    """

    make: MakeArm
    about: str
    needs_gradient: bool = False
    fixed: bool = False


def in_unit(settings: MethodSettings, unit: float) -> dict[str, Any]:
    """Convert settings for a reward of standard deviation 1 into settings for one of standard deviation `unit`."""
    found = dict(settings)
    for name in DIVIDED:
        if name in found:
            found[name] = found[name] / unit
    for name in MULTIPLIED:
        if name in found:
            found[name] = found[name] * unit
    return found


def filled(config: NullTTAConfig, budget: int, *, crossed: bool = False) -> NullTTAConfig:
    """Return the configuration with as many inner steps as a budget allows.

    n_min and n_max are multiplied until they exceed the budget, and then cut to it in proportion. `crossed` is as for
    `NullTTAConfig.branches`.

    Raises:
        InvalidValue: if the budget does not cover one inner step, or if there are none to multiply.
    """
    n_min, n_max = config.inner_steps
    if n_max == 0:
        raise InvalidValue("(0, 0) cannot be multiplied to fill a budget", field="inner_steps")
    times = 1
    while spent(replace(config, inner_steps=(n_min * times, n_max * times), budget=0), crossed=crossed) < budget:
        times += 1
    config = replace(config, inner_steps=(n_min * times, n_max * times), budget=budget)
    if spent(config, crossed=crossed) == spent(replace(config, inner_steps=(0, 0)), crossed=crossed):
        raise InvalidValue(f"of {budget} denoiser evaluations leaves no inner step beside the candidates", "budget")
    return config


def _spending(method: str, baseline: Baseline, **changes: Any) -> MakeArm:
    """Return a baseline that spends a budget by its cost, or if it has none by the inner steps of its configuration.

    It has the settings that were tuned for it except for some changes.
    """
    if baseline.cost is None:
        return _null_tta(method, method, **changes)
    return _counted(method, baseline.cost, **changes)


def _counted(method: str, cost: Cost, **changed: Any) -> MakeArm:
    """Return a method that costs each·n + once: n is as large as the budget allows."""
    published: Any = BASELINES[method].method
    own = {each.name for each in fields(published)} if is_dataclass(published) else set()

    def make(budget: int, task: ContenderTask) -> Arm:
        found = {**BASELINES[method].published, **task.of(method), **changed}
        settings = {name: value for name, value in found.items() if name in own}
        changes = {name: value for name, value in found.items() if name not in own}
        task = replace(task, config=replace(task.config.without_null_text(), **changes))
        branches, _ = task.config.branches(crossed=task.crossed)
        each, once = cost.of(replace(published, **settings), task.config.num_inference_steps, branches)
        n = _count(method, budget, each, once)
        if cost.count is None:
            return replace(_arm(method, task, settings=settings), samples=n)
        return _arm(method, task, settings={**settings, cost.count: n})

    return make


def _null_tta(method: str = "null-tta", tuned_as: str = "null-tta", **changes: Any) -> MakeArm:
    """Return Null-TTA or a variant, with the settings of `tuned_as` except for some changes."""

    def make(budget: int, task: ContenderTask) -> Arm:
        settings = {**task.of(tuned_as), **changes}
        runs = settings.pop(RUNS, 1)
        if not task.differentiable:
            settings["noise_tilt"] = 0.0
        config = replace(task.config, **settings).resolved(differentiable=task.differentiable)
        if config.gradient != "autograd" and "reward_weight" in task.of(tuned_as):
            config = replace(config, reward_weight=config.weights[0] / 2)  # as published: 50 instead of 100
        second = _second_pass(method, config)
        if budget // runs <= second:
            raise InvalidValue(f"of {budget} evaluations does not cover the {second} of a second pass", "budget")
        try:
            config = filled(config, budget // runs - second, crossed=task.crossed)
        except InvalidValue as error:
            if runs == 1:
                raise
            raise InvalidValue(f"{error}, in each of the {runs} runs that share {budget}") from error
        return replace(_arm(method, replace(task, config=config)), samples=runs)

    return make


def _last_step(budget: int, task: ContenderTask) -> Arm:
    """Return Null-TTA with inner steps at the last denoising step alone."""
    T = task.of("null-tta").get("num_inference_steps", task.config.num_inference_steps)
    return _null_tta(optimise_between=((T - 1) / T, 1.0))(budget, task)


def _without_consistency(budget: int, task: ContenderTask) -> Arm:
    """Return Null-TTA whose prior term keeps the tuned weight, without the consistency term."""
    weight = task.of("null-tta").get("kl_weight", task.config.kl_weight)
    return _null_tta(kl_weight=0.0, prior_weight=weight)(budget, task)


def _selection(budget: int, task: ContenderTask) -> Arm:
    """Return Null-TTA without inner steps: the whole budget goes into candidates."""
    tuned = {name: value for name, value in task.of("null-tta").items() if name in ("num_inference_steps", "eta")}
    config = replace(task.config.without_null_text(), **{**tuned, "inner_steps": (0, 0), "noise_tilt": 0.0})
    branches, _ = config.branches(crossed=task.crossed)
    config = replace(config, num_particles=_count("selection", budget, each=branches * config.num_inference_steps))
    return _arm("null-tta", replace(task, config=config.resolved(differentiable=task.differentiable)))


def _second_pass(method: str, config: NullTTAConfig) -> int:
    """Return the evaluations that a shared null text costs beyond Null-TTA."""
    T, K = config.num_inference_steps, config.num_particles
    return 2 * K * T + T if method == "shared-null" else 0


def _plain(budget: int, task: ContenderTask) -> Arm:  # noqa: ARG001 - its cost is fixed
    """Return plain sampling."""
    return _arm("plain", replace(task, config=task.config.without_null_text()))


def _fitted(form: FormName) -> MakeArm:
    """Return plain sampling under the null text of a form that was fitted for the target."""

    def make(budget: int, task: ContenderTask) -> Arm:  # noqa: ARG001 - its cost is fixed
        for file in task.fitted:
            about = _about(file)
            if (about.get("form"), about.get("reward")) == (form, task.target):
                return _arm(FITTED, task, settings={"file": file})
        raise InvalidValue(f"no file of form '{form}' for '{task.target}' was given (--fitted)")

    return make


def _hyper_noise(steps: int) -> MakeArm:
    """Return plain sampling in a number of steps from the noise that a network moved for the target."""

    def make(budget: int, task: ContenderTask) -> Arm:  # noqa: ARG001 - its cost is fixed
        for file in task.fitted:
            about = _about(file)
            if "form" not in about and about.get("reward") == task.target:
                config = replace(task.config.without_null_text(), num_inference_steps=steps)
                return _arm(MOVED_NOISE, replace(task, config=config), settings={"file": file})
        raise InvalidValue(f"no noise network for '{task.target}' was given (--fitted)")

    return make


def _about(file: str) -> dict[str, Any]:
    """Return how a fitted null text, which has a "form", or a noise network, which has none, was learnt."""
    with suppress(LoadError):
        return dict(FittedNullText.load(file).about)
    with suppress(LoadError):
        return about_network(file)
    raise InvalidValue(f"'{file}' is neither a fitted null text nor a noise network", "fitted")


def _arm(method: str, task: ContenderTask, settings: MethodSettings | None = None) -> Arm:
    """Return an arm of the task's target and configuration."""
    return Arm(name=method, target=task.target, method=method, settings=settings or {}, config=asdict(task.config))


def _count(name: str, budget: int, each: int, once: int = 0) -> int:
    """Return how many times `each` fits into the budget beside what is spent once."""
    if budget < once + each:
        raise InvalidValue(f"{name} takes {once + each} denoiser evaluations or more, not {budget}")
    return (budget - once) // each


ABLATIONS: Mapping[str, Contender] = {
    "selection": Contender(_selection, "no inner steps: the best of K candidates at each step"),
    "one-candidate": Contender(_null_tta(num_particles=1), "K = 1: no choice among candidates"),
    "no-consistency": Contender(_without_consistency, "without the consistency term"),
    "no-tilt": Contender(_null_tta(noise_tilt=0.0), "no noise is tilted along the reward's gradient"),
    "no-prior": Contender(_null_tta(prior_weight=0.0), "without the prior term"),
    "no-regulariser": Contender(_null_tta(kl_weight=0.0), "λ2 = 0: without either term"),
    "every-step": Contender(_null_tta(optimise_between=(0.0, 1.0)), "inner steps at all denoising steps"),
    "last-step": Contender(_last_step, "inner steps at the last denoising step alone"),
    "zeroth-order": Contender(_null_tta(gradient="zeroth-order", noise_tilt=0.0), "without the reward's gradient"),
    "shared-null": Contender(
        _null_tta("shared-null", num_particles=1), "one null text for all steps, K = 1 in both passes"
    ),
}

RIVALS: Mapping[str, Contender] = {
    "plain": Contender(_plain, "ordinary sampling", fixed=True),
    **{
        name: Contender(_spending(name, baseline), baseline.about, baseline.needs_gradient)
        for name, baseline in BASELINES.items() if name not in ABLATIONS
    },
    "fitted-constant": Contender(_fitted("constant"), "one fitted null text for all prompts, as ReNeg's", fixed=True),
    "fitted-prompt": Contender(_fitted("prompt"), "a null text that a fitted network makes of the prompt", fixed=True),
    "hyper-noise-1": Contender(_hyper_noise(1), "one step from the noise that a learnt network moves", fixed=True),
    "hyper-noise-4": Contender(_hyper_noise(4), "four steps from it", fixed=True),
    "null-tta": Contender(_null_tta(), "the null text is optimised at each step"),
}  # fmt: skip

TILTS = (0.3, 0.5, 0.7)
"""The strengths ρ of a tilt that the sweeps try."""

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
} | {
    f"tilt-{strength}": Contender(_null_tta(noise_tilt=strength), f"null-tta with ρ = {strength}", needs_gradient=True)
    for strength in TILTS
} | {
    f"{name}-{strength}": Contender(
        _spending(name, BASELINES[name], strength=strength), f"{name} with ρ = {strength}",
        BASELINES[name].needs_gradient,
    )
    for name in ("noise-tilt", "clean-tilt") for strength in TILTS
}  # fmt: skip

CONTENDERS: Mapping[str, Contender] = {**RIVALS, **ABLATIONS, **SWEEPS}
GROUPS: Mapping[str, Mapping[str, Contender]] = {"rivals": RIVALS, "ablations": ABLATIONS, "sweeps": SWEEPS}


def named(names: Sequence[str]) -> list[str]:
    """Return the contenders of names and names of groups, in order, each once.

    Raises:
        InvalidValue: if a name is unknown.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in CONTENDERS and name not in GROUPS:
            raise InvalidValue(f"'{name}' is unknown: known are {', '.join((*GROUPS, *CONTENDERS))}", "contender")
        found |= dict.fromkeys(GROUPS.get(name, (name,)))
    return list(found)


def arm(name: str, budget: int, label: str, task: ContenderTask) -> Arm:
    """Make the arm of a contender at a budget; the arm of a fixed contender has no budget.

    Args:
        name: the contender.
        budget: in denoiser evaluations.
        label: how the budget is written.
        task: what is to be done.

    Raises:
        InvalidValue: if the budget is too small, or if the contender needs a gradient and the target has none.
    """
    contender = CONTENDERS[name]
    if contender.needs_gradient and not task.differentiable:
        raise InvalidValue(f"{name} needs a reward with a gradient, and '{task.target}' has none")
    return replace(contender.make(budget, task), name=name, budget="" if contender.fixed else label)
