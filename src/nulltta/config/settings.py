"""The settings of a run. The symbols are those of the paper (Null-TTA, arXiv 2511.20889)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, Union, get_args

from nulltta.config.checks import number, one_of, whole
from nulltta.config.effects import refuse_without_effect
from nulltta.config.presets import PRESETS, preset_name
from nulltta.errors import InvalidValue

Conventions = Literal["paper", "release", "exact"]
Guidance = Literal["cfg", "nag", "cfg+nag"]
Norm = Literal["l1", "l2"]
NagNull = Literal["empty", "prompt"]
Gradient = Literal["auto", "autograd", "zeroth-order"]
Directions = Literal["white", "cma"]
Detail = Literal["full", "tiny"]
FormName = Literal["constant", "steps", "prompt", "tokens"]
"""What a fitted null text depends on; see `nulltta.null_text.forms`."""
MOST = 10_000
"""The most steps, candidates or points: a mistyped number is refused before it takes all time or memory."""

LARGEST_SEED = 2**63 - 1

PromptT = TypeVar("PromptT")
NegativeT = TypeVar("NegativeT")


def _option(default: Any, text: str) -> Any:
    """Declare a field with the help text of its command-line flag."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class NullTTAConfig:
    """Settings of a run.

    The defaults are those of the paper, except for zeroth order: there they are the settings that were measured best
    (docs/rewards.md); the published ones are "white" directions of radius 0.02.

    Attributes:
        num_inference_steps: T, the number of denoising steps; 1 to `MOST`.
        guidance_scale: s, the scale of classifier-free guidance; above 1 wherever that is applied.
        guidance: "cfg" for classifier-free guidance; "nag" for normalized attention guidance (arXiv 2505.21179), which
            gives models without a null branch a null text; "cfg+nag" for both with the same null text.
        nag_scale: NAG's scale s in the paper's convention, in which 0 means none; its published code adds 1 to it.
        nag_tau: NAG's τ, the most by which it may enlarge an attention output's norm; 1 or more.
        nag_alpha: NAG's α, the share of the guided attention output in the result; 0 to 1.
        nag_norm: the norm that τ bounds: "l1", as in NAG's paper, or "l2", as in its published code.
        nag_null: what φ is under "nag" where no negative prompt is given: "empty" for the encoded empty text, or
            "prompt" for the prompt itself, so that NAG under φ is no guidance at all, and plain sampling the model's
            own.
        inner_steps: (n_min, n_max), the inner steps at the first denoising step and at the last; 0 to `MOST`.
        num_particles: K, the candidates drawn at each denoising step; 1 to `MOST`. At η = 0 those of a step are equal,
            and K chooses among the first latents alone, at the same cost.
        reward_weight: λ1, the weight of the reward; 0 or more. None means 100, or 50 for zeroth order.
        kl_weight: λ2, the weight of the consistency term; 0 or more.
        prior_weight: λ2, the weight of the null text's Gaussian prior; 0 or more. None means the same as `kl_weight`,
            as in the paper.
        prior_variance: σφ², the variance of the prior; above 0.
        annealing: γ, how fast the inner steps grow and the regularisers fade; 0 or more. "auto" gives any number of
            denoising steps the same course that 0.008 gives 100 of them.
        learning_rate: Adam's learning rate on the null text; 0 or more.
        eta: η, the share of the posterior's standard deviation that is drawn anew at each denoising step: 0 for
            deterministic sampling, 1 for ancestral sampling.
        conventions: "paper" is the objective as written; "release" reproduces the published code (s² instead of
            (s−1)², candidate noise seeded by the timestep, NaN rewards counted as 0); "exact" replaces the
            consistency term by the KL divergence between the sampler's own Gaussian steps.
        gradient: "autograd", "zeroth-order", or "auto": autograd if the reward is differentiable.
        zeroth_order_samples: the points per inner step beside φ' itself at which a zeroth-order gradient evaluates
            the objective, or CMA-ES's population; 1 or more, for CMA-ES 2 or more.
        zeroth_order_radius: μ, the distance of these points from φ' per coordinate, or CMA-ES's first σ; above 0.
        zeroth_order_directions: "white" for forward differences along Gaussian directions, as published; "cma" for
            CMA-ES within the span of common words.
        inner_decoder: the decoder of the inner steps: "full", the model's own; "tiny", its small one.
        optimise_between: (from, to), the share of the denoising steps at which the null text is optimised,
            0 <= from < to <= 1.
        kl_target: the most that φ' may move the distribution of a denoising step, in nats of the exact KL divergence;
            above 0. After the inner steps φ' is drawn back towards φ as far as that takes. None for no bound.
        noise_tilt: ρ, how far the noise of each denoising step is tilted along the reward's gradient with respect to
            the clean estimate (arXiv 2606.18066), also where the null text is not optimised: 0 for not at all, 1 for
            the whitened gradient alone. It takes no further denoiser evaluation, and one backward pass through the
            decoder per step.
        budget: the most denoiser evaluations per prompt; inner steps are cut in proportion to keep it. An inner step
            counts two, forward and backward. 0 for no limit.

    Raises:
        InvalidValue: if a value is outside its range; the error names the field.
    """

    num_inference_steps: int = _option(100, "T: number of denoising steps")
    guidance_scale: float = _option(7.5, "s: scale of classifier-free guidance, above 1")
    guidance: Guidance = _option("cfg", "cfg (classifier-free), nag (normalized attention guidance) or cfg+nag")
    nag_scale: float = _option(4.0, "NAG's scale in the paper's convention; 1 less than its code's")
    nag_tau: float = _option(2.5, "NAG's τ: the most by which an attention output's norm may grow, 1 or more")
    nag_alpha: float = _option(0.25, "NAG's α: share of the guided attention output, 0 to 1")
    nag_norm: Norm = _option("l1", "the norm that τ bounds: l1 (NAG's paper) or l2 (its code)")
    nag_null: NagNull = _option("empty", "φ under nag without a negative prompt: empty (the empty text) or prompt")
    inner_steps: tuple[int, int] = _option((5, 25), "n_min n_max: inner steps at the first and last denoising step")
    num_particles: int = _option(3, "K: candidates drawn at each denoising step")
    reward_weight: float | None = _option(None, "λ1: weight of the reward; by default 100, or 50 for zeroth order")
    kl_weight: float = _option(0.002, "λ2: weight of the consistency term")
    prior_weight: float | None = _option(None, "λ2: weight of the null text's prior; by default the same as kl_weight")
    prior_variance: float = _option(0.01, "σφ²: variance of the null text's prior")
    annealing: float | Literal["auto"] = _option(0.008, "γ: how fast the regularisers fade, or 'auto'")
    learning_rate: float = _option(0.01, "Adam's learning rate on the null text")
    eta: float | Literal["auto"] = _option(1.0, "η: 0 for deterministic, 1 for ancestral sampling, or 'auto'")
    conventions: Conventions = _option("paper", "paper, release (the published code) or exact (the sampler's own KL)")
    gradient: Gradient = _option("auto", "auto, autograd or zeroth-order")
    zeroth_order_samples: int = _option(4, "points per zeroth-order gradient, or CMA-ES's population")
    zeroth_order_radius: float = _option(0.1, "μ: distance of these points, or CMA-ES's first σ")
    zeroth_order_directions: Directions = _option("cma", "white (Gaussian directions) or cma (CMA-ES among words)")
    inner_decoder: Detail = _option("full", "full or tiny: the decoder of the inner steps")
    optimise_between: tuple[float, float] = _option((0.0, 1.0), "from to: share of the denoising steps to optimise")
    kl_target: float | None = _option(None, "most nats by which the null text may move a denoising step")
    noise_tilt: float = _option(0.0, "ρ: how far a step's noise is tilted along the reward's gradient, 0 to 1")
    budget: int = _option(0, "most denoiser evaluations per prompt; 0 for no limit")

    def __post_init__(self) -> None:
        for name in ("inner_steps", "optimise_between"):  # lists, as read from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        whole(self, "num_inference_steps", at_least=1, at_most=MOST)
        whole(self, "num_particles", at_least=1, at_most=MOST)
        whole(self, "budget", at_least=0)
        self._check_inner_steps()
        for name in ("kl_weight", "learning_rate", "guidance_scale", "nag_scale", "nag_tau", "nag_alpha", "noise_tilt"):
            number(self, name)
        for name in ("reward_weight", "prior_weight"):
            if getattr(self, name) is not None:
                number(self, name)
        for name in ("prior_variance", "zeroth_order_radius"):
            number(self, name, positive=True)
        if self.kl_target is not None:
            number(self, "kl_target", positive=True)
        if self.annealing != "auto":
            number(self, "annealing", or_else=" or 'auto'")
        self._check_guidance()
        if self.eta != "auto":
            number(self, "eta", or_else=" or 'auto'")
        if self.eta != "auto" and self.eta > 1:
            raise InvalidValue(f"must lie between 0 and 1, not {self.eta:g}", "eta")
        self._check_tilt()
        shares = self.optimise_between
        if len(shares) != 2 or not 0 <= shares[0] < shares[1] <= 1:
            raise InvalidValue(
                f"must be two shares of the denoising steps, 0 <= from < to <= 1, not {shares}", "optimise_between"
            )
        for name, choices in (
            ("conventions", Conventions), ("gradient", Gradient), ("zeroth_order_directions", Directions),
            ("inner_decoder", Detail), ("nag_norm", Norm), ("nag_null", NagNull),
        ):  # fmt: skip
            one_of(self, name, get_args(choices))
        whole(self, "zeroth_order_samples", at_least=1, at_most=MOST)
        if self.zeroth_order_directions == "cma" and self.zeroth_order_samples < 2:
            raise InvalidValue("must be 2 or more for cma, which compares the points", "zeroth_order_samples")

    def _check_guidance(self) -> None:
        one_of(self, "guidance", get_args(Guidance))
        if self.guidance != "nag" and self.guidance_scale <= 1:
            raise InvalidValue(
                f"must be above 1, not {self.guidance_scale:g}: below, the null text has no effect", "guidance_scale"
            )
        if self.guidance != "cfg" and self.conventions == "release":
            raise InvalidValue(f"must be paper or exact under {self.guidance}, which the release does not have",
                               "conventions")  # fmt: skip
        if self.guidance == "nag" and self.nag_scale == 0 and self.inner_steps[1]:
            raise InvalidValue(
                "must be above 0: at 0 the null text has no effect; or take no inner steps (inner_steps)",
                "nag_scale",
            )
        if self.guidance == "nag" and self.nag_alpha == 0 and self.inner_steps[1]:
            raise InvalidValue("must be above 0: at 0 the null text has no effect", "nag_alpha")
        if self.nag_tau < 1:
            raise InvalidValue(f"must be 1 or more, not {self.nag_tau:g}", "nag_tau")
        if self.nag_alpha > 1:
            raise InvalidValue(f"must lie between 0 and 1, not {self.nag_alpha:g}", "nag_alpha")

    def _check_tilt(self) -> None:
        if self.noise_tilt > 1:
            raise InvalidValue(f"must lie between 0 and 1, not {self.noise_tilt:g}", "noise_tilt")
        if self.noise_tilt and self.conventions == "release":
            raise InvalidValue("must be 0 under the conventions of the release, which does not have it", "noise_tilt")
        if self.noise_tilt and self.eta == 0:
            raise InvalidValue("must be 0 at eta 0, where no step draws noise", "noise_tilt")

    def branches(self, *, crossed: bool = False) -> tuple[int, int]:
        """Return the denoiser branches of a guided prediction, and those of them that φ' conditions.

        Args:
            crossed: whether the model reads texts by cross-attention alone, so that NAG takes one branch instead of two
                (`GuidedModel.crossed`).
        """
        if self.guidance == "cfg":
            return 2, 1
        if self.guidance == "nag" and self.nag_scale == 0:
            return 1, 0
        count = (1 if crossed else 2) + (self.guidance == "cfg+nag")
        return count, count

    def negatives(self, prompts: Sequence[PromptT], given: Sequence[NegativeT]) -> list[PromptT | NegativeT]:
        """Return the texts of φ: the negative prompts that were given, and by `nag_null` the prompts for empty ones."""
        own = self.guidance == "nag" and self.nag_null == "prompt"
        return [prompt if own and not negative else negative for prompt, negative in zip(prompts, given, strict=True)]

    def without_null_text(self) -> NullTTAConfig:
        """Return the configuration for a method that moves no null text: where normalized attention guidance is there
        for the null text's sake alone, sampling without it; any other guidance is the model's own."""
        if self.guidance != "nag":
            return self
        return replace(self, nag_scale=0.0, inner_steps=(0, 0), noise_tilt=0.0, kl_target=None)

    def _check_inner_steps(self) -> None:
        counts = self.inner_steps
        if len(counts) != 2 or any(type(n) is not int or n < 0 for n in counts):
            raise InvalidValue(f"must be two whole numbers n_min n_max, 0 or more, not {counts}", "inner_steps")
        if counts[0] > counts[1]:
            raise InvalidValue(f"must be n_min n_max: {counts} is reversed", "inner_steps")
        if counts[1] > MOST:
            raise InvalidValue(f"must be {MOST} or less, not {counts[1]}", "inner_steps")

    @property
    def optimised_steps(self) -> range:
        """The numbers, from 0, of the denoising steps within `optimise_between`, which may take inner steps."""
        first, end = (round(share * self.num_inference_steps) for share in self.optimise_between)
        return range(first, end)

    @property
    def weights(self) -> tuple[float, float, float]:
        """λ1 of the reward, λ2 of the consistency term and λ2 of the prior, with the defaults filled in."""
        default = 50.0 if self.gradient == "zeroth-order" else 100.0
        reward = default if self.reward_weight is None else self.reward_weight
        return reward, self.kl_weight, self.kl_weight if self.prior_weight is None else self.prior_weight

    def resolved(self, *, differentiable: bool) -> NullTTAConfig:
        """Return the configuration with the gradient and the reward's weight that suit a reward of that kind."""
        automatic: Gradient = "autograd" if differentiable else "zeroth-order"
        config = replace(self, gradient=automatic) if self.gradient == "auto" else self
        return replace(config, reward_weight=config.weights[0])

    @classmethod
    def embedded(cls, **changes: Any) -> NullTTAConfig:
        """Return the preset of the embedded model."""
        return cls.preset("embedded", **changes)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> NullTTAConfig:
        """Return a preset with some of its fields changed.

        Args:
            name: a name in `nulltta.config.presets.PRESETS`, such as "paper" for the published settings; or a model, a
                pipeline's class, a diffusers directory or a hub id, for the preset of its family.
            changes: fields by name.

        Raises:
            InvalidValue: if a value is outside its range, or a change has no effect under the other settings.
        """
        preset = PRESETS[preset_name(name)]
        config = cls(**{**preset, **changes})
        refuse_without_effect(config, cls(**preset))
        return config


def without_none(hint: Any) -> Any:
    """Return the type of a field that may also be None without None: float for `float | None`."""
    members = get_args(hint)
    return hint if type(None) not in members else Union[tuple(m for m in members if m is not type(None))]  # noqa: UP007
