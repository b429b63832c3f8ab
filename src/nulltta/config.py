"""The one configuration: a field a symbol of the paper (Null-TTA, arXiv 2511.20889)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nulltta.errors import InvalidValue

Conventions = Literal["paper", "release", "exact"]
Gradient = Literal["auto", "autograd", "zeroth-order"]
Directions = Literal["white", "antithetic", "words", "cma"]
Detail = Literal["full", "half", "tiny"]
Regularisers = Literal["both", "consistency", "prior"]


def _option(default: Any, text: str) -> Any:
    """A field with the text that the command line shows for its flag."""
    return field(default=default, metadata={"help": text})


_SECONDS = re.compile(r"\d+(\.\d+)?s")


class _Published(float):
    """The published value of a setting that the caller left alone."""


@dataclass(frozen=True, kw_only=True)
class NullTTAConfig:
    """Settings of a run; the defaults are the published ones, but for the directions of zeroth order, which are those
    measured best (docs/rewards.md); published are "white" ones of radius 0.02. Errors: `NullTTAError` names the field.

    conventions: "paper" is the objective as written; "release" reproduces the published code number by number
        (s² for (s−1)², candidate noise seeded by the timestep, NaN rewards as 0); "exact" replaces the
        consistency term by the true KL divergence of the sampler's stochastic step.
    """

    num_inference_steps: int = _option(100, "T: denoising steps")
    guidance_scale: float = _option(7.5, "s: classifier-free guidance, above 1")
    inner_steps: tuple[int, int] = _option((5, 25), "n_min n_max: inner steps at the first and last step")
    num_particles: int = _option(3, "K: candidates drawn at each denoising step")
    reward_weight: float = _option(_Published(100.0), "λ1: weight of the reward; for zeroth order 50")
    kl_weight: float = _option(0.002, "λ2: weight of both regularisers")
    prior_variance: float = _option(0.01, "σφ²: variance of the null text's prior")
    regularisers: Regularisers = _option("both", "both, consistency or prior: what λ2 weighs")
    annealing: float | Literal["auto"] = _option(0.008, "γ: how fast the regularisers fade, or 'auto'")
    learning_rate: float = _option(0.01, "Adam's learning rate on the null text")
    eta: float = _option(1.0, "η: 0 deterministic, 1 ancestral sampling")
    conventions: Conventions = _option("paper", "paper, release or exact")
    gradient: Gradient = _option("auto", "auto, autograd or zeroth-order")
    zeroth_order_samples: int = _option(4, "K: directions of a zeroth-order gradient, or cma's population")
    zeroth_order_radius: float = _option(0.1, "μ: how far along each direction it looks; cma's first σ")
    zeroth_order_directions: Directions = _option("cma", "white, antithetic, words, or cma among words")
    inner_decoder: Detail = _option("full", "full, half or tiny: what the inner steps decode with")
    optimise_between: tuple[float, float] = _option((0.0, 1.0), "from to: the share of denoising that is optimised")
    patience: int = _option(0, "inner steps without a better objective after which to stop; 0 takes them all")
    budget: float | str = _option(0, "a prompt's at most: 400 denoiser evaluations, or 20s; 0 for none")

    def __post_init__(self) -> None:
        if self.gradient == "zeroth-order" and isinstance(self.reward_weight, _Published):
            object.__setattr__(self, "reward_weight", 50.0)
        for name in ("inner_steps", "optimise_between"):  # lists, as read from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        whole(self, "num_inference_steps", at_least=1)
        whole(self, "num_particles", at_least=1)
        if len(self.inner_steps) != 2 or any(type(n) is not int or n < 0 for n in self.inner_steps):
            raise InvalidValue(
                f"must be two whole numbers n_min n_max, 0 or more, not {self.inner_steps}", "inner_steps"
            )
        if self.inner_steps[0] > self.inner_steps[1]:
            raise InvalidValue(f"must be n_min n_max: {self.inner_steps} is reversed", "inner_steps")
        for name in ("reward_weight", "kl_weight", "learning_rate", "eta", "guidance_scale", "prior_variance"):
            number(self, name)
        number(self, "zeroth_order_radius")
        if self.annealing != "auto":
            number(self, "annealing", or_else=" or 'auto'")
        if self.guidance_scale <= 1:
            raise InvalidValue(
                f"must be above 1, not {self.guidance_scale:g}: below, the null text has no effect", "guidance_scale"
            )
        if self.prior_variance == 0:
            raise InvalidValue("prior_variance must be above 0")
        if self.eta > 1:
            raise InvalidValue(f"must lie between 0 and 1, not {self.eta:g}", "eta")
        whole(self, "patience", at_least=0)
        self.seconds_budget, self.evaluations_budget  # noqa: B018 - they check it
        one_of(self, "inner_decoder", ("full", "half", "tiny"))
        shares = self.optimise_between
        if len(shares) != 2 or not 0 <= shares[0] < shares[1] <= 1:
            raise InvalidValue(f"optimise_between is two shares of denoising, 0 <= from < to <= 1, not {shares}")
        one_of(self, "conventions", ("paper", "release", "exact"))
        one_of(self, "regularisers", ("both", "consistency", "prior"))
        one_of(self, "gradient", ("auto", "autograd", "zeroth-order"))
        one_of(self, "zeroth_order_directions", ("white", "antithetic", "words", "cma"))
        whole(self, "zeroth_order_samples", at_least=1)
        if self.zeroth_order_directions in ("antithetic", "words") and self.zeroth_order_samples % 2:
            raise InvalidValue(
                f"zeroth_order_samples must be even for {self.zeroth_order_directions} directions, which come in "
                f"pairs, not {self.zeroth_order_samples}"
            )
        if self.zeroth_order_directions == "cma" and self.zeroth_order_samples < 2:
            raise InvalidValue("zeroth_order_samples must be 2 or more for cma, which compares them")
        if self.zeroth_order_radius == 0:
            raise InvalidValue("zeroth_order_radius must be above 0")

    @property
    def evaluations_budget(self) -> int | None:
        """The denoiser evaluations of a prompt at most, an inner step's counting two: forward and back."""
        if isinstance(self.budget, str) or not self.budget:
            return None
        if isinstance(self.budget, bool) or self.budget < 0 or self.budget % 1:
            raise InvalidValue(
                f"budget is a whole number of denoiser evaluations, or seconds as in 20s, not {self.budget}"
            )
        return int(self.budget)

    @property
    def seconds_budget(self) -> float | None:
        """The seconds of a prompt at most."""
        if not isinstance(self.budget, str):
            return None
        if not _SECONDS.fullmatch(self.budget):
            raise InvalidValue(f"budget is a number of denoiser evaluations, or seconds as in 20s, not {self.budget!r}")
        return float(self.budget[:-1])

    def resolved(self, *, differentiable: bool) -> NullTTAConfig:
        """With gradient "auto" replaced by what a reward's kind asks for."""
        if self.gradient != "auto":
            return self
        return replace(self, gradient="autograd" if differentiable else "zeroth-order")

    @classmethod
    def embedded(cls, **changes: Any) -> NullTTAConfig:
        """The preset for the embedded model: the published balance of reward and regularisers, and long inner steps in
        the last third of the denoising steps, where a third of the evaluations reach the reward of steps everywhere
        (studies/frontier.py)."""
        preset = {
            "num_inference_steps": 25, "guidance_scale": 3.0, "optimise_between": (0.66, 1.0), "inner_steps": (3, 8),
            "learning_rate": 0.025, "num_particles": 3, "annealing": "auto",
        }  # fmt: skip
        return cls(**{**preset, **changes})

    @classmethod
    def preset(cls, model_name: str, **changes: Any) -> NullTTAConfig:
        """The preset of a model that has one, else the published defaults."""
        return cls.embedded(**changes) if model_name == "embedded" else cls(**changes)


def whole(settings: Any, name: str, at_least: int) -> None:
    """Refuse a field that is no whole number, or below `at_least`."""
    value = getattr(settings, name)
    if type(value) is not int or value < at_least:
        raise InvalidValue(f"must be a whole number, {at_least} or more, not {value}", name)


def number(settings: Any, name: str, or_else: str = "") -> None:
    """Refuse a field that is no finite number, or below 0."""
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InvalidValue(f"must be a number, 0 or more{or_else}, not {value}", name)


def one_of(settings: Any, name: str, allowed: Iterable[str]) -> None:
    """Refuse a field that is none of the allowed words."""
    if (value := getattr(settings, name)) not in allowed:
        raise InvalidValue(f"must be one of {', '.join(allowed)}, not {value!r}", name)
