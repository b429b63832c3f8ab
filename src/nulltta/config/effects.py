"""Settings that others leave without effect, which are refused where they were given.

Presets, defaults and records may hold such settings: a preset for normalized attention guidance has a
`guidance_scale` too. A user who gives one expects it to do something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nulltta.errors import InvalidValue

if TYPE_CHECKING:
    from nulltta.config.settings import NullTTAConfig

NAG = ("nag_scale", "nag_tau", "nag_alpha", "nag_norm", "nag_null")
POINTS = ("zeroth_order_samples", "zeroth_order_radius", "zeroth_order_directions")
INNER = (
    "optimise_between", "learning_rate", "reward_weight", "kl_weight", "prior_weight", "prior_variance", "annealing",
    "gradient", *POINTS, "inner_decoder", "noise_tilt",
)  # fmt: skip
"""What only inner steps read. `kl_target` also bounds a null text that a run starts from."""
OPTIMISING = ("null-tta", "prompt-embedding", "shared-null")
"""The methods that take inner steps; the others read the settings of the sampler alone."""


def without_effect(config: NullTTAConfig, method: str = "null-tta", *, started: bool = True) -> dict[str, str]:
    """Return the settings that have no effect under a method and the other settings, with the reason, by name.

    Args:
        config: the settings.
        method: a name in `nulltta.alignment.METHODS`.
        started: whether the run starts from a null text, or may do so.
    """
    found = {}
    if config.guidance == "nag":
        found["guidance_scale"] = "the guidance is nag, whose scale is another setting (nag_scale)"
    if config.guidance == "cfg":
        found |= dict.fromkeys(NAG, "the guidance is cfg: choose nag or cfg+nag (guidance)")
    if config.gradient == "autograd":
        found |= dict.fromkeys(POINTS, "the gradient is autograd: choose zeroth-order (gradient)")
    if config.gradient == "zeroth-order" and config.zeroth_order_directions == "cma":
        found["learning_rate"] = "CMA-ES has none: choose white directions (zeroth_order_directions)"
    if config.weights[2] == 0:
        found["prior_variance"] = "the prior's weight is 0 (prior_weight)"
    if config.inner_steps[1] == 0:
        found |= dict.fromkeys(INNER if started else (*INNER, "kl_target"), "no inner steps are taken (inner_steps)")
    if method not in OPTIMISING:
        unread = (*INNER, "inner_steps", "num_particles", "kl_target", "budget")
        found |= dict.fromkeys(unread, f"the method {method} takes no inner steps and draws no candidates (method)")
    return found


def refuse_without_effect(
    config: NullTTAConfig,
    usual: NullTTAConfig,
    method: str = "null-tta",
    *,
    differentiable: bool | None = None,
    started: bool = True,
) -> None:
    """Refuse a setting that was given although it has no effect.

    Args:
        config: the settings of a run.
        usual: what they would be if none had been given; a setting was given if it differs from this.
        method: a name in `nulltta.alignment.METHODS`.
        differentiable: whether the reward gives a gradient; None if it is not known yet.
        started: whether the run starts from a null text, or may do so.

    Raises:
        InvalidValue: if there is such a setting; the error names it, and the one that leaves it without effect.
    """
    if differentiable is not None:
        config, usual = (each.resolved(differentiable=differentiable) for each in (config, usual))
    for name, reason in without_effect(config, method, started=started).items():
        if getattr(config, name) != getattr(usual, name):
            raise InvalidValue(f"has no effect: {reason}", name)
