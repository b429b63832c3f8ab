"""Noise levels, asked of the caller's own scheduler, and the Gaussian steps between them.

At each step the scheduler says how it would noise an image of ones with no noise, and an image of zeros with noise of
one: x = α·x0 + σ·ε. Whatever sets its levels (Karras, a shift, zero terminal SNR, EDM) is in the answer.

A step from (α, σ) to (α', σ') is x' ~ N(α'·x̂0 + √(σ'² − s²)·ε̂, s²I). Whatever s is, x' has the marginal of the next
level where x̂0 and ε̂ are exact (DDIM, arXiv 2010.02502, section 4). s = η·s_max with s_max the posterior's deviation of
x' given x and x0: η = 0 is the deterministic step (DDIM; Euler for a flow), η = 1 the ancestral one (DDPM; first-order
SDE-DPM-Solver++, arXiv 2211.01095). A scheduler of higher order brings its levels, and these steps between them.

Latents of variance-exploding schedulers (α = 1) are divided by √(1 + σ²), which makes them variance-preserving.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nulltta.contracts import NoiseStep
from nulltta.errors import InvalidValue
from nulltta.models.recording import StepRecord

TOLERANCE = 1e-3  # relative, of the scheduler's own step against ours
STRIDE = 4e-3  # in α and σ: more than one step of a training schedule of 1000


@dataclass(frozen=True, slots=True)
class ObservedStep(NoiseStep):
    """A `NoiseStep` with all that a model needs to take it.

    Attributes:
        signal, noise: α and σ of the latent, in the model's units.
        signal_next, noise_next: of the latent that this step leads to.
        unit: the scheduler's latents over the model's.
        unit_next: of the latent that this step leads to.
        kind: what is predicted, a key of `KINDS`.
        skip, out: for the kind "preconditioned", x̂0 = skip·x + out·prediction.
        component: the denoiser that predicts.
        inputs: by path, one row of what the denoiser is told of the time.
        gains: by path, what latents are multiplied by for the denoiser.
    """

    signal: float = 1.0
    noise: float = 0.0
    signal_next: float = 1.0
    noise_next: float = 0.0
    unit: float = 1.0
    unit_next: float = 1.0
    kind: str = "epsilon"
    skip: float = 0.0
    out: float = 0.0
    component: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    gains: Mapping[str, float | Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def input_gain(self) -> float:
        """The first of `gains` that is one number for all elements of the latent, or 1."""
        return next((gain for gain in self.gains.values() if isinstance(gain, float)), 1.0)


Estimate = Callable[[Tensor, Tensor, ObservedStep], Tensor]


KINDS: Mapping[str, tuple[Estimate, Estimate, Callable[[ObservedStep], float]]] = {
    # name: (x̂0, ε̂, ∂x̂0/∂prediction) of (x, prediction, step)
    "epsilon": (
        lambda x, eps, step: (x - step.noise * eps) / step.signal,
        lambda x, eps, step: eps,  # noqa: ARG005
        lambda step: -step.noise / step.signal,
    ),
    "v_prediction": (  # v = α·ε − σ·x0 (arXiv 2202.00512)
        lambda x, v, step: step.signal * x - step.noise * v,
        lambda x, v, step: _roots(step)[0] * v + _roots(step)[1] * x,
        lambda step: -step.noise,
    ),
    "flow": (  # v = ε − x0 (arXiv 2209.03003)
        lambda x, v, step: (x - step.noise * v) / (step.signal + step.noise),
        lambda x, v, step: (x + step.signal * v) / (step.signal + step.noise),
        lambda step: -step.noise / (step.signal + step.noise),
    ),
    "sample": (
        lambda x, x0, step: x0,  # noqa: ARG005
        lambda x, x0, step: (x - step.signal * x0) / step.noise,
        lambda step: 1.0,  # noqa: ARG005
    ),
    "preconditioned": (  # EDM (arXiv 2206.00364, eq. 7)
        lambda x, f, step: step.skip * x + step.out * f,
        lambda x, f, step: (x - step.signal * (step.skip * x + step.out * f)) / step.noise,
        lambda step: step.out,
    ),
}


def _roots(step: ObservedStep) -> tuple[Tensor, Tensor]:
    """√ᾱ and √(1−ᾱ), in float32 like diffusers' DDIM: near ᾱ = 0 its rounding shows."""
    now = torch.tensor(step.alpha_bar, dtype=torch.float32)
    return now.sqrt(), (1 - now).sqrt()


def predict_x0(x: Tensor, prediction: Tensor, step: ObservedStep) -> Tensor:
    """x̂0, Tweedie's estimate of the clean latent."""
    return KINDS[step.kind][0](x, prediction, step)


def step_distribution(x: Tensor, prediction: Tensor, step: ObservedStep) -> tuple[Tensor, float]:
    """The step above: mean and deviation of the next latent."""
    clean, noise, _ = KINDS[step.kind]
    precision = torch.float64 if step.kind == "flow" else torch.float32
    now, then = torch.tensor([step.alpha_bar, step.alpha_bar_previous], dtype=precision)
    std = step.eta * ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0).sqrt()
    direction = (1 - then - std**2).clamp(min=0).sqrt()
    scale = math.hypot(step.signal_next, step.noise_next)
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    mean = scale * then.sqrt() * clean(x, prediction, step) + scale * direction * noise(x, prediction, step)
    return mean, scale * float(std)


def schedule(records: Sequence[StepRecord]) -> list[ObservedStep]:
    """The steps between the recorded levels, without `inputs` and `gains`; those that lead to no lower level are left
    out of it by a component of "".

    Raises:
        InvalidValue: if the levels do not fall, or the scheduler's own step is not one between them.
    """
    levels = [_asked(record.scheduler, record.timestep) for record in records]
    levels.append(_terminal(records[-1]))
    shares = [_share(*level) for level in levels]
    if any(then < now - 1e-9 for now, then in pairwise(shares)):
        raise InvalidValue(
            f"scheduler {type(records[0].scheduler).__name__}'s noise levels do not fall from step to step: it is not "
            "supported"
        )
    exploding = all(abs(signal - 1) < 1e-6 for signal, _ in levels)
    units = [math.hypot(*level) if exploding else 1.0 for level in levels]
    kind = _kind(records, levels)
    reached = [_reached(*each, kind) for each in zip(records, levels, levels[1:], strict=False)]
    trained = int(records[0].scheduler.config.num_train_timesteps)
    ladder = _Ladder(records[0].scheduler, trained)
    made = []
    for i, record in enumerate(records):
        (signal, noise), (signal_next, noise_next) = levels[i], reached[i]
        alpha_bar, following = shares[i], _share(*reached[i])
        skip, out = _preconditioning(record.scheduler, noise) if kind == "preconditioned" else (0.0, 0.0)
        step = ObservedStep(
            timestep=torch.as_tensor(record.timestep).flatten()[0].item(),
            alpha_bar=alpha_bar,
            alpha_bar_previous=following,
            consistency=0.0,
            signal=signal / units[i],
            noise=noise / units[i],
            signal_next=signal_next / units[i + 1],
            noise_next=noise_next / units[i + 1],
            unit=units[i],
            unit_next=units[i + 1],
            kind=kind,
            skip=skip * units[i],
            out=out,
            component="" if following - alpha_bar < 1e-9 else record.calls[0].component,
        )
        made.append(_weighed(step, ladder))
    return made


def _share(signal: float, noise: float) -> float:
    """ᾱ, the share of signal in the latent's variance."""
    return signal**2 / (signal**2 + noise**2)


def _asked(scheduler: Any, timestep: Any, ahead: int = 0) -> tuple[float, float]:
    """(α, σ) at a step, or at one `ahead` of it, by the scheduler's own way of adding noise."""
    own = copy.copy(scheduler)
    t = torch.as_tensor(timestep).flatten()[:1].cpu()
    if hasattr(own, "_step_index"):
        if own._step_index is None:
            own._init_step_index(t[0])
        own._begin_index, own._step_index = 0, own._step_index + ahead
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if hasattr(own, "scale_noise"):
        pair = own.scale_noise(one, t, zero), own.scale_noise(zero, t, one)
    elif hasattr(own, "add_noise"):
        pair = own.add_noise(one, zero, t), own.add_noise(zero, one, t)
    else:
        raise InvalidValue(f"scheduler {type(scheduler).__name__} is not supported: it does not say its noise levels")
    return float(pair[0]), float(pair[1])


def _terminal(record: StepRecord) -> tuple[float, float]:
    """(α, σ) after the last step."""
    scheduler = record.scheduler
    if hasattr(scheduler, "_step_index") and isinstance(getattr(scheduler, "sigmas", None), Tensor):
        return _asked(scheduler, record.timestep, ahead=1)
    final = getattr(scheduler, "final_alpha_cumprod", None)
    if final is None:
        return 1.0, 0.0
    final = torch.as_tensor(final, dtype=torch.float64)
    return float(final**0.5), float((1 - final) ** 0.5)


def _kind(records: Sequence[StepRecord], levels: Sequence[tuple[float, float]]) -> str:
    """Return what is predicted: the kind under which the scheduler's own steps lead from level to level.

    The kind that the scheduler's configuration names is taken if its first step fits, because near pure noise, and in
    many small steps, other kinds come close; without a name the kind that fits best is taken.
    """
    scheduler = records[0].scheduler
    config = scheduler.config
    landings = {kind: _landing(records[0], levels[0], levels[1], kind) for kind in KINDS}
    errors = {kind: landing.error for kind, landing in landings.items() if landing is not None}
    named = {"flow_prediction": "flow"}.get(config.get("prediction_type"), config.get("prediction_type"))
    best = named if errors.get(named, 1.0) < STRIDE else min(errors, key=lambda kind: errors[kind], default=None)
    if best is not None and errors[best] < STRIDE:
        return best
    name = type(scheduler).__name__
    cause = next((f": its {key} changes the clean estimate, set it to False" for key in ("thresholding", "clip_sample")
                  if config.get(key)), ": it is not supported")  # fmt: skip
    if levels[0][0] == 0 and config.get("prediction_type") == "epsilon":
        raise InvalidValue(
            "a model that predicts noise has no clean estimate at zero terminal SNR (rescale_betas_zero_snr)"
        )
    raise InvalidValue(f"scheduler {name}'s own step does not lead from one of its noise levels to the next{cause}")


def _reached(
    record: StepRecord, now: tuple[float, float], then: tuple[float, float], kind: str
) -> tuple[float, float]:  # fmt: skip
    """Return (α', σ') that the step really leads to: beside the next level where DDIM's even stride leads there."""
    if abs(math.hypot(*then) - 1) > 1e-6 or kind == "flow":
        return then
    landing = _landing(record, now, then, kind)
    if landing is None or not 1e-6 < abs(landing.signal - then[0]) <= landing.error < STRIDE:
        return then
    return landing.signal, math.sqrt(1 - landing.signal**2)


@dataclass(frozen=True, slots=True)
class _Landing:
    """Where a scheduler's own step leads: α'·x̂0 + c·ε̂ plus noise.

    Attributes:
        signal: α'.
        error: how far α' is from the next recorded level's, or c from the range of 0 to σ' that every step from one
            level to the next has, deterministic or ancestral. DDIM steps by an even stride, which with some spacings
            leads one training step beside the next timestep: an error below `STRIDE`.
    """

    signal: float
    error: float


def _landing(
    record: StepRecord, now: tuple[float, float], then: tuple[float, float], kind: str
) -> _Landing | None:  # fmt: skip
    """Ask a copy of the scheduler to step at random latents and predictions, with its noise set to zero.

    Returns None if the step is not a combination of x̂0 and ε̂ alone: the scheduler looks back at earlier steps, or
    the kind does not exist at this level.
    """
    (signal, noise), (signal_next, noise_next) = now, then
    skip, out = _preconditioning(record.scheduler, noise)
    if (kind == "preconditioned") != bool(out) or (kind == "epsilon" and signal == 0) or noise == 0:
        return None
    scheduler, generator = copy.deepcopy(record.scheduler), torch.Generator().manual_seed(0)
    x, v = (torch.randn((1, *record.sample.shape[1:]), generator=generator, dtype=torch.float64) for _ in range(2))
    scale = math.hypot(signal, noise)
    x = x * scale
    t = record.timestep.cpu() if isinstance(record.timestep, Tensor) else record.timestep
    given = {"model_output": v, "timestep": t, "sample": x, "return_dict": False}
    with warnings.catch_warnings(), torch.no_grad(), _NoNoise():
        warnings.simplefilter("ignore")  # of a step that is taken out of its turn
        stepped = scheduler.step(**{**given, **_further(scheduler)})[0].double()
    if stepped.shape != x.shape:  # mixed with earlier steps of the recorded batch
        return None
    unit = scale if kind == "v_prediction" else 1.0  # v is defined in variance-preserving units
    at = ObservedStep(
        0.0, _share(signal, noise), 0.0, 0.0, signal=signal / unit, noise=noise / unit, kind=kind, skip=skip, out=out
    )
    clean = predict_x0(x / unit, v, at)
    basis = torch.stack([clean.flatten(), ((x - signal * clean) / noise).flatten()], 1)
    solution = torch.linalg.lstsq(basis, stepped.flatten()[:, None]).solution.flatten()
    if float((basis @ solution - stepped.flatten()).abs().max() / stepped.abs().max()) > TOLERANCE:
        return None
    reached, c = solution.tolist()
    beyond = max(0.0, c - noise_next, -c) / max(1.0, noise_next)
    return _Landing(reached, max(abs(reached - signal_next), beyond))


def _further(scheduler: Any) -> dict[str, Any]:
    """Arguments that some schedulers' steps need beside the usual ones."""
    names = inspect.signature(scheduler.step).parameters
    return {name: None for name in ("old_pred_original_sample", "timestep_back") if name in names}


class _NoNoise(TorchFunctionMode):
    """Replaces this thread's draws of normal noise by zeros."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        return torch.zeros_like(result) if function in (torch.randn, torch.randn_like) else result


def _preconditioning(scheduler: Any, noise: float) -> tuple[float, float]:
    """EDM's c_skip and c_out at a level; zeros for schedulers that have none."""
    if not hasattr(scheduler, "precondition_outputs"):
        return 0.0, 0.0
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    sigma = torch.tensor(noise, dtype=torch.float64)
    return (
        float(scheduler.precondition_outputs(one, zero, sigma)),
        float(scheduler.precondition_outputs(zero, one, sigma)),
    )


class _Ladder:
    """ᾱ of a training schedule, one training step below a level."""

    def __init__(self, scheduler: Any, trained: int) -> None:
        self.trained = trained
        table = getattr(scheduler, "alphas_cumprod", None)
        self.table = None if table is None or hasattr(scheduler, "precondition_outputs") else table.double().cpu()
        self.betas = getattr(scheduler, "betas", None)
        self.sigmas = None
        if self.table is None and hasattr(scheduler, "precondition_outputs"):
            own = copy.deepcopy(scheduler)
            own.set_timesteps(trained)
            self.sigmas = [float(sigma) for sigma in own.sigmas]

    def below(self, step: ObservedStep) -> tuple[float, float]:
        """(1 − α_t, ᾱ_{t−1}) with α_t = ᾱ_t/ᾱ_{t−1}."""
        if step.kind == "flow" or (self.table is None and self.sigmas is None):
            sigma = step.noise / (step.signal + step.noise)
            lower = max(0.0, sigma - 1 / self.trained)
            below = _share(1 - lower, lower)
            return 1 - step.alpha_bar / below, below
        if self.table is not None:
            t = round(step.timestep)
            exact = t == step.timestep and 0 <= t < len(self.table)
            if exact and abs(float(self.table[t]) - step.alpha_bar) < 1e-6:
                assert self.betas is not None
                return float(self.betas[t]), float(self.table[t - 1]) if t > 0 else 1.0
            below = _interpolated(self.table.tolist(), step.alpha_bar)
        else:
            assert self.sigmas is not None
            below = _interpolated([_share(1, sigma) for sigma in reversed(self.sigmas)], step.alpha_bar)
        return 1 - step.alpha_bar / below, below


def _interpolated(falling: Sequence[float], value: float) -> float:
    """The value one index before the place, between whole indices, where a falling sequence has this value."""

    def at(place: float) -> float:
        if place < 0:
            return 1.0 + (falling[0] - 1.0) * (place + 1)
        low = min(int(place), len(falling) - 2)
        return falling[low] + (falling[low + 1] - falling[low]) * (place - low)

    above = next((i for i, each in enumerate(falling) if each <= value), len(falling) - 1)
    if above == 0:
        return min(1.0, at(-1.0 + 1e-9))
    high, low = falling[above - 1], falling[above]
    place = above - 1 + (min(1.0, (high - value) / (high - low)) if high > low else 0.0)
    return at(place - 1)


def _weighed(step: ObservedStep, ladder: _Ladder) -> ObservedStep:
    """The step with the paper's (1−α_t)/(2α_t(1−ᾱ_t)), for the quantity that is predicted.

    ε̂ = (x − α·x̂0)/σ gives ‖Δε‖ = (α/σ)·|∂x̂0/∂v|·‖Δv‖, and α²/α_t = ᾱ_{t−1}·(α² + σ²) is finite at α = 0.
    """
    beta, below = ladder.below(step)
    out = KINDS[step.kind][2](step)
    power = step.signal**2 + step.noise**2
    power = 1.0 if abs(power - 1) < 1e-6 else power
    weight = beta * below * (out**2 / step.noise**2 * power) / (2 * (1 - step.alpha_bar))
    return replace(step, consistency=weight)
