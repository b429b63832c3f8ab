"""Stable Diffusion 1.x: a UNet conditioned on CLIP's tokens, ε- or v-prediction, DDIM steps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.types import Embedding, NoiseStep, NullTTAError


class StableDiffusion:
    """`StableDiffusionPipeline` as a `GuidedModel`; its weights are frozen in place.

    The embedding is {"tokens": (B, L, D)}, kept in float32 and cast to the denoiser's type where it is used.
    """

    def __init__(self, pipeline: Any, name: str = "StableDiffusionPipeline") -> None:
        from diffusers import DDIMScheduler

        self.name = name
        self.pipeline = pipeline
        self.unet, self.vae = pipeline.unet.eval(), pipeline.vae.eval()
        for module in (self.unet, self.vae, pipeline.text_encoder.eval()):
            module.requires_grad_(False)
        # Clipping latents has no meaning; from_config of another scheduler's config would turn it on.
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        if (kind := self.scheduler.config.prediction_type) not in ("epsilon", "v_prediction"):
            raise NullTTAError(f"prediction type '{kind}' is not supported: epsilon and v_prediction are")
        self.predicts_v = kind == "v_prediction"

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """{"tokens": (B, L, D)} of prompts and negatives; warns, naming it, of text past the tokenizer's length."""
        for prompt in dict.fromkeys([*prompts, *negatives]):
            self._warn_if_cut(prompt)
        with torch.no_grad():
            cond, null = self.pipeline.encode_prompt(
                list(prompts), self.pipeline.device, 1, True, negative_prompt=list(negatives)
            )
        return {"tokens": cond.float()}, {"tokens": null.float()}

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """DDIM's timesteps, spaced as the checkpoint's scheduler says."""
        scheduler = self.scheduler
        trained = scheduler.config.num_train_timesteps
        if num_inference_steps > trained:
            raise NullTTAError(f"num_inference_steps {num_inference_steps} is above the {trained} of its training")
        scheduler.set_timesteps(num_inference_steps)
        stride = trained // num_inference_steps  # as DDIMScheduler.step has it
        return [self._step(int(t), int(t) - stride) for t in scheduler.timesteps]

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """(batch, C, h, w) at the checkpoint's own resolution."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        noise = torch.randn((batch, self.unet.config.in_channels, height, width), generator=generator)
        return noise * float(self.scheduler.init_noise_sigma)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """ε or v, as the checkpoint predicts, in float32."""
        dtype = self.unet.dtype
        tokens = embedding["tokens"].to(dtype)
        output: Tensor = self.unet(x.to(dtype), step.timestep, encoder_hidden_states=tokens).sample
        return output.float()

    def clean(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        """x̂0 = (x − √(1−ᾱ)·ε)/√ᾱ, or √ᾱ·x − √(1−ᾱ)·v (DDIM, arXiv 2010.02502, eq. 9; v: arXiv 2202.00512)."""
        signal, noise = step.alpha_bar**0.5, (1 - step.alpha_bar) ** 0.5
        return signal * x - noise * prediction if self.predicts_v else (x - noise * prediction) / signal

    def transition(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        """DDIM's step (arXiv 2010.02502, eq. 12 and 16): x' ~ N(√ᾱ'·x̂0 + √(1−ᾱ'−σ²)·ε, σ²I)."""
        # In float32 like DDIMScheduler: near ᾱ = 0 its rounding shows, and plain sampling is to equal the stock one.
        now, previous = torch.tensor([step.alpha_bar, step.alpha_bar_previous])
        std = step.eta * ((1 - previous) / (1 - now) * (1 - now / previous)).clamp(min=0).sqrt()
        direction = (1 - previous - std**2).clamp(min=0).sqrt()
        eps = now.sqrt() * prediction + (1 - now).sqrt() * x if self.predicts_v else prediction
        return previous.sqrt() * self.clean(x, prediction, step) + direction * eps, float(std)

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Images in [0, 1]; no gradient where the decoder's output is clamped."""
        if detail != "full":
            raise NullTTAError(f"unknown detail '{detail}': this model decodes in 'full'")
        latents = (x0 / self.vae.config.scaling_factor).to(self.vae.dtype)
        images: Tensor = self.vae.decode(latents).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

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

    def _warn_if_cut(self, prompt: str) -> None:
        tokenizer = self.pipeline.tokenizer
        limit = tokenizer.model_max_length
        ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(ids) > limit:
            lost = tokenizer.decode(ids[limit - 1 : -1], skip_special_tokens=True).strip()
            warnings.warn(f"the prompt is longer than {limit} tokens; cut off: '{lost}'", stacklevel=3)
