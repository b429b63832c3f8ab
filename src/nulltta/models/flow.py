"""Rectified flow: x_σ = (1−σ)·x0 + σ·ε, velocity v = ε − x0 (arXiv 2209.03003), and its stochastic steps.

A step from σ to σ' is N((1−σ')·x̂0 + √(σ'² − s²)·ε̂, s²I) with x̂0 = x − σv and ε̂ = x + (1−σ)v. Whatever s is, x' has
the marginal of level σ' where x̂0 and ε̂ are exact (the argument of DDIM, arXiv 2010.02502, sec. 4, which asks of the
noising process only that it is Gaussian). s = η·s_max, with s_max² = σ'²·(1 − (σ'/σ)²·((1−σ)/(1−σ'))²) the posterior
variance of x' given x and x0. η = 0 is the Euler step of the flow, x + (σ'−σ)v; η = 1 is first-order
SDE-DPM-Solver++ (arXiv 2211.01095), the ancestral step.

The latent's share of signal is ᾱ = (1−σ)²/((1−σ)²+σ²), from which σ is recovered: a `NoiseStep` needs no more.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from nulltta.contracts import NoiseStep
from nulltta.errors import InvalidValue
from nulltta.models.shared import PipelineModel


def schedule(scheduler: Any, num_inference_steps: int, **options: Any) -> list[NoiseStep]:
    """The noise levels of a flow-matching scheduler, after `set_timesteps(num_inference_steps, **options)`.

    scheduler: FlowMatchEuler, or DPM-Solver or UniPC with `use_flow_sigmas`; only its levels are used.
    """
    trained = scheduler.config.num_train_timesteps
    if num_inference_steps > trained:
        raise InvalidValue(
            f"must be at most {trained}, as many as in training, not {num_inference_steps}", "num_inference_steps"
        )
    scheduler.set_timesteps(num_inference_steps, **options)
    levels = [float(sigma) for sigma in scheduler.sigmas]
    return [
        NoiseStep(float(t), alpha_bar(now), alpha_bar(then), consistency(now, trained))
        for t, (now, then) in zip(scheduler.timesteps, pairwise(levels), strict=True)
    ]


def shifted(scheduler: Any, num_inference_steps: int, tokens: int) -> list[NoiseStep]:
    """Equal steps of σ from 1 on, shifted for an image of so many tokens."""
    equal = np.linspace(1, 1 / num_inference_steps, num_inference_steps)
    levels = None if scheduler.config.get("use_flow_sigmas") else equal
    return schedule(scheduler, num_inference_steps, sigmas=levels, mu=exponential_shift(scheduler, tokens))


def own(scheduler: Any) -> Any:
    """A copy of the pipeline's scheduler, so that its state stays the pipeline's. Refuses one that is no flow."""
    config = scheduler.config
    flows = "FlowMatch" in type(scheduler).__name__ or config.get("use_flow_sigmas") or config.get("flow_shift")
    if not flows or config.get("invert_sigmas"):
        raise InvalidValue(f"scheduler {type(scheduler).__name__} is not supported: this family's is a flow's")
    return type(scheduler).from_config(config)


def alpha_bar(sigma: float) -> float:
    """The share of signal in the latent's variance at level σ."""
    return (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)


def sigma(alpha_bar: float) -> float:
    """σ, of the share of signal."""
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    return noise / (signal + noise)


def consistency(sigma: float, trained: int) -> float:
    """The paper's (1−α_t)/(2α_t(1−ᾱ_t)) for a velocity.

    Divided by √((1−σ)²+σ²) a flow's latent is a diffusion's, with the same ε and the ᾱ above. One training step
    is σ's fall by 1/trained, so α_t = ᾱ(σ)/ᾱ(σ − 1/trained); and ε̂ = x + (1−σ)v gives ‖Δε‖² = (1−σ)²‖Δv‖². As
    (1−σ)²/α_t = ᾱ(σ − 1/trained)·((1−σ)²+σ²), the product is finite at σ = 1, where α_t is 0.
    """
    below = alpha_bar(max(0.0, sigma - 1 / trained))
    power = (1 - sigma) ** 2 + sigma**2
    return (1 - alpha_bar(sigma) / below) * below * power**2 / (2 * sigma**2)


def predict_x0(x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
    """x̂0 = x − σ·v."""
    return x - sigma(step.alpha_bar) * prediction


def step_distribution(x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
    """The step above: mean (N, ...) and deviation η·s_max."""
    now, then = sigma(step.alpha_bar), sigma(step.alpha_bar_previous)
    kept = 0.0 if then == 0 else (then / now) * (1 - now) / (1 - then)  # √(SNR_σ/SNR_σ'), at most 1
    std = step.eta * then * (1 - kept**2) ** 0.5
    direction = (then**2 - std**2) ** 0.5
    eps = x + (1 - now) * prediction
    return (1 - then) * predict_x0(x, prediction, step) + direction * eps, std


def exponential_shift(scheduler: Any, tokens: int, highest: float = 1.15) -> float:
    """μ of a scheduler that shifts its levels by resolution (Flux, SD3.5, QwenImage): linear in the image's tokens."""
    config = scheduler.config
    base, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", highest)
    return float(low + (high - low) * (tokens - base) / (most - base))


class FlowModel(PipelineModel):
    """A pipeline's adapter that predicts velocities, by default at the checkpoint's noise levels."""

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """The checkpoint's noise levels."""
        return schedule(self.scheduler, num_inference_steps)

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        """x̂0 of a velocity."""
        return predict_x0(x, prediction, step)

    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        """The stochastic step of a flow."""
        return step_distribution(x, prediction, step)
