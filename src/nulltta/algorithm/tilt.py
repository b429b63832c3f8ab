"""Tilting a step's noise along the reward's gradient (NTRK, also NoiseTilt, arXiv 2606.18066).

    z' = √(1−ρ²)·z + ρ·w,  w = whitened ∇r

Whitening keeps the order of the gradient's elements and gives them the values of a normal sample, so that the tilted
noise has nearly the norm of noise and does not depend on the reward's unit. Where the gradient is zero there is no
direction, and the noise stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nulltta.contracts import GuidedModel, NoiseStep
from nulltta.errors import InvalidValue


def tilted(noise: Tensor, slope: Tensor, strength: float) -> Tensor:
    """Return noise tilted along a slope.

    Args:
        noise: (B, K, C, h, w), z.
        slope: (B, C, h, w), the reward's gradient, which a prompt's K candidates share.
        strength: ρ, between 0 (the noise itself) and 1 (the whitened gradient alone).
    """
    steep = slope.flatten(1).any(dim=1).view(-1, *[1] * slope.dim())
    mixed = (1 - strength**2) ** 0.5 * noise + strength * gaussian_ranks(slope)[:, None]
    return torch.where(steep, mixed, noise)


def require_noise(model: GuidedModel, x: Tensor, steps: Sequence[NoiseStep], setting: str) -> None:
    """Refuse a tilt by a setting of that name where there is no noise to lean.

    Raises:
        InvalidValue: if no denoising step of latents like x (B, C, h, w) draws noise.
    """
    if not any(draws_noise(model, x, step) for step in steps):
        raise InvalidValue("has no effect: no denoising step draws noise (num_inference_steps, eta)", setting)


def draws_noise(model: GuidedModel, x: Tensor, step: NoiseStep) -> bool:
    """Return whether a denoising step of latents like x (B, C, h, w) draws noise."""
    return model.step_distribution(x, x, step)[1] > 0


def gaussian_ranks(values: Tensor) -> Tensor:
    """Replace each row's elements (n, ...) by the normal quantiles of their ranks: the k-th smallest of D elements
    becomes Φ⁻¹((k − ½)/D), so that a row has mean 0 and a variance just below 1."""
    flat = values.flatten(1)
    ranks = flat.argsort(dim=1, stable=True).argsort(dim=1).to(torch.float32)
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / flat.shape[1])
    return quantiles.view_as(values).to(values)
