"""Null-TTA written straight from the paper (arXiv 2511.20889), for one prompt, at the cost of its published release.

Every inner step differentiates both branches and the full decoder; Adam is torch's, the DDIM step is diffusers'. It is
the reference that `studies/cost.py` compares with, and an independent check of `conventions="release"`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class PublishedTrace:
    """What the loop saw.

    Attributes:
        initial: (K,), the rewards of the initial candidates.
        inner: the reward at each inner step, by denoising step.
        candidates: the rewards of the K candidates, by denoising step.
        image: (3, H, W), the best of the last candidates.
    """

    initial: Tensor = field(default_factory=lambda: torch.empty(0))
    inner: list[list[float]] = field(default_factory=list)
    candidates: list[list[float]] = field(default_factory=list)
    image: Tensor = field(default_factory=lambda: torch.empty(0))


def run(
    pipeline: Any,
    prompt: str,
    reward: Any,
    latents: Tensor,
    config: Any,
    noise: Callable[[int], Tensor] | None = None,
) -> PublishedTrace:
    """Sample one prompt.

    Args:
        pipeline: a Stable Diffusion pipeline with a DDIM scheduler.
        prompt: what to draw.
        reward: a callable (images, prompts) -> (B,).
        latents: (K, C, h, w), the initial latents.
        config: a `NullTTAConfig`.
        noise: step index -> (K, C, h, w); None for the release's own noise, which is seeded by t.
    """
    scheduler, s, device = pipeline.scheduler, config.guidance_scale, latents.device
    scheduler.set_timesteps(config.num_inference_steps)
    cond, null = pipeline.encode_prompt(prompt, device, 1, True, negative_prompt="")
    phi = null.clone()
    factor = s**2 if config.conventions == "release" else (s - 1) ** 2
    trace = PublishedTrace()

    def branches(x: Tensor, t: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        pair = torch.cat([embedding.expand(len(x), -1, -1), cond.expand(len(x), -1, -1)])
        eps_null, eps_cond = pipeline.unet(torch.cat([x, x]), t, encoder_hidden_states=pair).sample.chunk(2)
        return eps_null, eps_null + s * (eps_cond - eps_null)

    def decode(x0: Tensor) -> Tensor:
        image: Tensor = pipeline.vae.decode(x0 / pipeline.vae.config.scaling_factor).sample
        return (image / 2 + 0.5).clamp(0, 1)

    def clean(x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        alpha_bar = scheduler.alphas_cumprod[t]
        if scheduler.config.prediction_type == "v_prediction":
            found: Tensor = alpha_bar.sqrt() * x - (1 - alpha_bar).sqrt() * eps
        else:
            found = (x - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
        return found

    def rewards_of(images: Tensor, floor: float) -> Tensor:
        return torch.nan_to_num(reward(images, [prompt] * len(images)), nan=floor)

    def by_timestep(t: Tensor) -> Tensor:
        return torch.randn(latents.shape, generator=torch.Generator().manual_seed(int(t))).to(latents)

    with torch.no_grad():
        t = scheduler.timesteps[0]
        trace.initial = rewards_of(decode(clean(latents, branches(latents, t, phi)[1], t)), -torch.inf)
        x = latents[trace.initial.argmax()][None]

    for i, t in enumerate(scheduler.timesteps):
        p = min(1.0, (1 + config.annealing) ** i - 1)
        n = round(config.inner_steps[0] + (config.inner_steps[1] - config.inner_steps[0]) * p)
        a = max(0.0, 1 - p)
        alpha, alpha_bar = 1 - scheduler.betas[t], scheduler.alphas_cumprod[t]
        weight = (1 - alpha) / (2 * alpha * (1 - alpha_bar))
        if scheduler.config.prediction_type == "v_prediction":
            weight = weight * alpha_bar  # ε = √ᾱ·v + √(1−ᾱ)·x
        with torch.no_grad():
            reference = branches(x, t, null)[0]
        phi = phi.detach().clone().requires_grad_()
        adam = torch.optim.Adam([phi], lr=config.learning_rate)
        trace.inner.append([])
        for _ in range(n):
            eps_null, eps = branches(x, t, phi)
            value = rewards_of(decode(clean(x, eps, t)), 0.0)[0]
            consistency = weight * factor * (eps_null - reference).square().sum()
            prior = (phi - null).square().sum() / (2 * config.prior_variance)
            loss = -config.weights[0] * value + a * config.kl_weight * (consistency + prior)
            trace.inner[-1].append(value.item())
            if not torch.isfinite(loss):
                continue
            adam.zero_grad()
            loss.backward()
            adam.step()
        with torch.no_grad():
            eps = branches(x, t, phi)[1]
            drawn = [
                scheduler.step(eps, t, x, eta=config.eta, variance_noise=one[None]).prev_sample
                for one in (noise(i) if noise else by_timestep(t))
            ]
            x = torch.cat(drawn)
            last = i + 1 == len(scheduler.timesteps)
            nxt = t if last else scheduler.timesteps[i + 1]
            images = decode(x if last else clean(x, branches(x, nxt, phi)[1], nxt))
            values = rewards_of(images, -torch.inf)
            trace.candidates.append(values.tolist())
            best = values.argmax()
            x, trace.image = x[best][None], images[best]
    return trace
