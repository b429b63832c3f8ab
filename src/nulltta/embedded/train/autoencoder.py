"""Stage 1: the autoencoder, on fresh scenes: L1 on pixels and on their differences."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from ..autoencoder import PatchAutoencoder
from ..grammar import Size, sample
from ..render import render_batch
from .loop import Budget, Draws, Recipe, load_trained, train

NAME = "autoencoder"
BATCH = 24
PCA_IMAGES = 1024


def scenes(rng: random.Random, n: int, size: Size, pixels: int = 64) -> Tensor:
    """n images of training scenes (n, 3, pixels, pixels) in [-1, 1]."""
    return render_batch([sample(rng, size) for _ in range(n)], rng, pixels).float() / 127.5 - 1


def build() -> PatchAutoencoder:
    model: PatchAutoencoder = PatchAutoencoder()
    return model


def differences(x: Tensor) -> Tensor:
    """Horizontal and vertical differences of neighbouring pixels, in one row an image."""
    return torch.cat([x.diff(dim=-1).flatten(1), x.diff(dim=-2).flatten(1)], 1)


def loss(model: PatchAutoencoder, images: Tensor, draws: Draws) -> tuple[Tensor, dict[str, float]]:
    """Reconstruct `images` from latents with a little noise, so that the decoder forgives the denoiser's errors."""
    z = model.latents(images).float()
    noise = torch.randn(z.shape, generator=draws.torch).to(z)
    strength = 0.3 * torch.rand(len(z), 1, 1, 1, generator=draws.torch).to(z)
    y = model.pixels(z + strength * noise).float()
    l1 = (y - images).abs().mean()
    edges = (differences(y) - differences(images)).abs().mean()
    white = (z.std((0, 2, 3)) - 1).pow(2).mean() + z.mean((0, 2, 3)).pow(2).mean()
    return l1 + 0.5 * edges + 0.01 * white, {"l1": l1.item(), "white": white.item()}


def run(size: Size, budget: Budget) -> None:
    """Train to the end of the budget; the checkpoint's latents are white on training scenes."""
    torch.manual_seed(0)
    model = build()
    model.fit_linear(scenes(random.Random(0), PCA_IMAGES, size))
    batch = BATCH if size == "cpu" else 8 * BATCH

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        return loss(model, scenes(draws.python, batch, size).to(budget.device), draws)

    train(Recipe(NAME, model, step, batch, lr=1.5e-3, weight_decay=0.0), budget)


def load(size: Size, budget: Budget) -> PatchAutoencoder:
    """The trained autoencoder, whitened."""
    model = build()
    load_trained(model, budget.folder, NAME)
    model.whiten(scenes(random.Random(1), PCA_IMAGES, size))
    return model
