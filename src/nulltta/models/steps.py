"""The Gaussian steps between noise levels.

A step from (α, σ) to (α', σ') is x' ~ N(α'·x̂0 + √(σ'² − s²)·ε̂, s²I). Whatever s is, x' has the marginal of the next
level where x̂0 and ε̂ are exact (DDIM, arXiv 2010.02502, section 4). s = η·s_max with s_max the posterior's deviation of
x' given x and x0: η = 0 is the deterministic step (DDIM; Euler for a flow), η = 1 the ancestral one (DDPM; first-order
SDE-DPM-Solver++, arXiv 2211.01095). A scheduler of higher order brings its levels, and these steps between them.

Latents of variance-exploding schedulers (α = 1) are divided by √(1 + σ²), which makes them variance-preserving.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import GuidedModel, NoiseStep


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

    @property
    def scale(self) -> float:
        """√(α² + σ²), exactly 1 where rounding alone parts it from 1."""
        return _scale(self.signal, self.noise)

    @property
    def scale_next(self) -> float:
        """The same of the latent that this step leads to."""
        return _scale(self.signal_next, self.noise_next)


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
    "reversed flow": (  # v = x0 − ε, as Mochi's
        lambda x, v, step: (x + step.noise * v) / (step.signal + step.noise),
        lambda x, v, step: (x - step.signal * v) / (step.signal + step.noise),
        lambda step: step.noise / (step.signal + step.noise),
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


FLOWS = ("flow", "reversed flow")
"""The kinds in which x = α·x0 + σ·ε with α + σ = 1."""


def _scale(signal: float, noise: float) -> float:
    """√(α² + σ²), or 1 if it is that but for rounding."""
    scale = math.hypot(signal, noise)
    return 1.0 if abs(scale - 1) < 1e-6 else scale


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
    all_anew = step.eta > 1  # so that nothing but rounding would be left of the noise that is kept
    precision = torch.float64 if step.kind in FLOWS or all_anew else torch.float32
    now, then = torch.tensor([step.alpha_bar, step.alpha_bar_previous], dtype=precision)
    std = step.eta * ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0).sqrt()
    direction = (1 - then - std**2).clamp(min=0).sqrt()
    mean = then.sqrt() * clean(x, prediction, step) + direction * noise(x, prediction, step)
    return step.scale_next * mean, step.scale_next * float(std)


def share(signal: float, noise: float) -> float:
    """Return ᾱ, the share of signal in a latent's variance."""
    return signal**2 / (signal**2 + noise**2)


class StepwiseModel(GuidedModel):
    """A model whose schedule consists of `ObservedStep`s, which say themselves how they are taken."""

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        """x̂0, Tweedie's estimate."""
        assert isinstance(step, ObservedStep)
        return predict_x0(x, prediction, step)

    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        """The step to the next of the scheduler's levels: mean and deviation."""
        assert isinstance(step, ObservedStep)
        return step_distribution(x, prediction, step)
