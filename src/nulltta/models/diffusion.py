"""Variance-preserving diffusion (ε- or v-prediction): x_t = √ᾱ·x0 + √(1−ᾱ)·ε, and its DDIM steps.

At η = 1 the step is the DDPM posterior. Euler ancestral and first-order SDE-DPM-Solver++ are the same Gaussian
between the same two noise levels (docs/families.md), so a scheduler of these kinds brings its timesteps, no more.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import NoiseStep
from nulltta.errors import InvalidValue
from nulltta.models.shared import PipelineModel


class Diffusion:
    """The steps of a DDIM scheduler with a checkpoint's noise schedule, prediction type and timestep spacing."""

    def __init__(self, scheduler: Any) -> None:
        from diffusers import DDIMScheduler

        # Clipping latents has no meaning; from_config of another scheduler's config would turn it on. DDIM steps by
        # an even stride, which under "linspace" (PixArt's DPM-Solver) would not lead to the next timestep.
        spacing = scheduler.config.get("timestep_spacing", "leading")
        changes = {"timestep_spacing": "trailing" if spacing == "linspace" else spacing}
        self.scheduler = DDIMScheduler.from_config(scheduler.config, clip_sample=False, **changes)
        if (kind := self.scheduler.config.prediction_type) not in ("epsilon", "v_prediction"):
            raise InvalidValue(f"prediction type '{kind}' is not supported: epsilon and v_prediction are")
        self.predicts_v = kind == "v_prediction"

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """DDIM's timesteps, spaced as the checkpoint's scheduler says."""
        scheduler = self.scheduler
        trained = scheduler.config.num_train_timesteps
        if num_inference_steps > trained:
            raise InvalidValue(
                f"must be at most {trained}, as many as in training, not {num_inference_steps}", "num_inference_steps"
            )
        scheduler.set_timesteps(num_inference_steps)
        stride = trained // num_inference_steps  # as DDIMScheduler.step has it
        return [self._step(int(t), int(t) - stride) for t in scheduler.timesteps]

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        """x̂0 = (x − √(1−ᾱ)·ε)/√ᾱ, or √ᾱ·x − √(1−ᾱ)·v (DDIM, arXiv 2010.02502, eq. 9; v: arXiv 2202.00512)."""
        signal, noise = math.sqrt(step.alpha_bar), math.sqrt(1 - step.alpha_bar)
        return signal * x - noise * prediction if self.predicts_v else (x - noise * prediction) / signal

    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        """DDIM's step (arXiv 2010.02502, eq. 12 and 16): x' ~ N(√ᾱ'·x̂0 + √(1−ᾱ'−σ²)·ε, σ²I)."""
        # In float32 like DDIMScheduler: near ᾱ = 0 its rounding shows, and plain sampling is to equal the stock one.
        now, previous = torch.tensor([step.alpha_bar, step.alpha_bar_previous])
        std = step.eta * ((1 - previous) / (1 - now) * (1 - now / previous)).clamp(min=0).sqrt()
        direction = (1 - previous - std**2).clamp(min=0).sqrt()
        eps = now.sqrt() * prediction + (1 - now).sqrt() * x if self.predicts_v else prediction
        return previous.sqrt() * self.predict_x0(x, prediction, step) + direction * eps, float(std)

    def _step(self, t: int, t_previous: int) -> NoiseStep:
        alpha_bars = self.scheduler.alphas_cumprod
        alpha_bar = float(alpha_bars[t])
        previous = alpha_bars[t_previous] if t_previous >= 0 else self.scheduler.final_alpha_cumprod
        beta = float(self.scheduler.betas[t])
        if self.predicts_v:  # ε = √ᾱ·v + √(1−ᾱ)·x, so ‖Δε‖² = ᾱ‖Δv‖²; ᾱ_t/α_t = ᾱ_{t−1} is finite at ᾱ_T = 0
            weight = beta * (float(alpha_bars[t - 1]) if t > 0 else 1.0) / (2 * (1 - alpha_bar))
        else:
            weight = beta / (2 * (1 - beta) * (1 - alpha_bar))
        return NoiseStep(t, alpha_bar, float(previous), weight)


class DiffusionModel(PipelineModel):
    """A pipeline's adapter whose noise levels and steps are those of `process`."""

    process: Diffusion

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """DDIM's timesteps, spaced as the checkpoint's scheduler says."""
        return self.process.schedule(num_inference_steps)

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        """x̂0 of an ε- or v-prediction."""
        return self.process.predict_x0(x, prediction, step)

    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        """DDIM's step."""
        return self.process.step_distribution(x, prediction, step)
