"""Settings that others leave without effect, which are refused where they were given.

Presets, defaults and records may hold such settings: a preset for normalized attention guidance has a
`guidance_scale` too. A user who gives one expects it to do something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from nulltta.config.annealing import annealing_coefficient, inner_step_count
from nulltta.errors import InvalidValue

if TYPE_CHECKING:
    from nulltta.config.settings import NullTTAConfig

NAG = ("nag_scale", "nag_tau", "nag_alpha", "nag_norm", "nag_null")
POINTS = ("zeroth_order_samples", "zeroth_order_radius", "zeroth_order_directions")
INNER = (
    "optimise_between", "learning_rate", "reward_weight", "kl_weight", "prior_weight", "prior_variance", "annealing",
    "gradient", *POINTS, "inner_decoder", "noise_tilt", "budget",
)  # fmt: skip
"""What only inner steps read. `kl_target` also bounds a null text that a run starts from."""
OPTIMISING = ("null-tta", "prompt-embedding", "shared-null")
"""The methods that take inner steps; the others read the settings of the sampler alone."""
KEEPING = ("null-tta", "shared-null")
"""The methods whose null text can be saved."""


class Idle(NamedTuple):
    """Why a setting has no effect.

    Attributes:
        cause: the setting that takes its effect away.
        reason: what is wrong, as it follows "has no effect: ".
    """

    cause: str
    reason: str


def without_effect(config: NullTTAConfig, method: str | None = None, *, started: bool = True) -> dict[str, Idle]:
    """Return the settings that have no effect under a method and the other settings, with the reason, by name.

    A run is the same whatever their values are.

    Args:
        config: the settings.
        method: a name in `nulltta.alignment.METHODS`; None if it is not known yet.
        started: whether the run starts from a null text, or may do so.
    """
    found: dict[str, Idle] = {}

    def idle(names: Iterable[str], cause: str, reason: str) -> None:
        found.update(dict.fromkeys(names, Idle(cause, f"{reason} ({cause})")))

    _, kl_weight, prior_weight = config.weights
    if config.guidance == "nag":
        found["guidance_scale"] = Idle("guidance", "the guidance is nag, whose scale is another setting (nag_scale)")
    if config.guidance == "cfg":
        idle(NAG, "guidance", "the guidance is cfg: choose nag or cfg+nag")
    elif config.nag_scale == 0:
        idle(NAG[1:], "nag_scale", "NAG's scale is 0")
    elif config.guidance == "cfg+nag":
        idle(("nag_null",), "guidance", "under cfg+nag the null text is the negative prompt's, also an empty one's")
    if config.gradient == "autograd":
        idle(POINTS, "gradient", "the gradient is autograd: choose zeroth-order")
    if config.gradient == "zeroth-order" and config.zeroth_order_directions == "cma":
        idle(["learning_rate"], "zeroth_order_directions", "CMA-ES has none: choose white directions")
    if prior_weight == 0:
        idle(["prior_variance"], "prior_weight", "the prior's weight is 0")
    if kl_weight == prior_weight == 0 and len(set(config.inner_steps)) == 1:
        idle(["annealing"], "inner_steps", "every denoising step takes as many inner steps, without a regulariser")
    if config.inner_steps[1] == 0:
        idle(INNER if started else (*INNER, "kl_target"), "inner_steps", "no inner steps are taken")
    if method not in (None, *OPTIMISING):
        unread = (*INNER, "inner_steps", "num_particles", "kl_target")
        idle(unread, "method", f"the method {method} takes no inner steps and draws no candidates")
    return found


def defeating(config: NullTTAConfig, method: str | None = None, *, started: bool = True) -> dict[str, str]:
    """Return the settings whose value takes the effect of others away, with what they must be instead, by name.

    Args:
        config: the settings.
        method: one of `OPTIMISING`; None if the method is not known, which may then be one of few denoising steps.
        started: whether the run starts from a null text, or may do so.
    """
    found: dict[str, str] = {}
    if config.guidance == "cfg+nag":
        instead = "must be above 0 under cfg+nag: at 0 that is cfg (guidance)"
        found |= {name: instead for name in ("nag_scale", "nag_alpha") if getattr(config, name) == 0}
    if config.inner_steps[1] == 0:
        return found
    instead = "or take no inner steps (inner_steps)"
    if config.learning_rate == 0 and "learning_rate" not in without_effect(config):
        found["learning_rate"] = f"must be above 0: at 0 the inner steps move nothing; {instead}"
    if config.weights[0] == 0 and not started:  # from another start the regularisers lead back to φ
        found["reward_weight"] = f"must be above 0: at 0 the inner steps raise no reward; {instead}"
    if config.optimised_steps and not _most_inner_steps(config):
        found["inner_steps"] = "come to none at every optimised denoising step, as annealing rounds them: raise them"
    if not config.optimised_steps:
        steps = config.num_inference_steps
        found["optimise_between"] = f"covers none of the {steps} denoising steps: widen it, {instead}"
        if method is not None:
            found["num_inference_steps"] = (
                f"of {steps} leaves none to optimise: take more, or widen the share of them (optimise_between)"
            )
    return found


def _most_inner_steps(config: NullTTAConfig) -> int:
    """Return n_i of the last optimised denoising step, which takes most inner steps."""
    gamma = annealing_coefficient(config.annealing, config.num_inference_steps)
    return inner_step_count(config.optimised_steps[-1], gamma, config.inner_steps)


def given_in_vain(
    config: NullTTAConfig,
    usual: NullTTAConfig,
    method: str | None = None,
    *,
    differentiable: bool | None = None,
    started: bool = True,
) -> dict[str, str]:
    """Return what is wrong with each setting that was given although it has no effect, or leaves others without one.

    Args:
        config: the settings of a run.
        usual: what they would be if none had been given; a setting was given if it differs from this.
        method: a name in `nulltta.alignment.METHODS`; None if it is not known yet.
        differentiable: whether the reward gives a gradient; None if it is not known yet.
        started: whether the run starts from a null text, or may do so.
    """
    if differentiable is not None:
        config, usual = (each.resolved(differentiable=differentiable) for each in (config, usual))
    reasons = {
        name: f"has no effect: {idle.reason}" for name, idle in without_effect(config, method, started=started).items()
    }
    if method in (None, *OPTIMISING):
        reasons |= defeating(config, method, started=started)
    return {name: why for name, why in reasons.items() if getattr(config, name) != getattr(usual, name)}


def refuse_without_effect(config: NullTTAConfig, usual: NullTTAConfig, method: str | None = None, **known: Any) -> None:
    """Refuse a setting that was given although it has no effect, or leaves others without one.

    Args:
        config: the settings of a run.
        usual: what they would be if none had been given.
        method: a name in `nulltta.alignment.METHODS`; None if it is not known yet.
        known: the keyword arguments of `given_in_vain`.

    Raises:
        InvalidValue: if there is such a setting; the error names it, and the one that takes its effect away.
    """
    for name, reason in given_in_vain(config, usual, method, **known).items():
        raise InvalidValue(reason, name)
