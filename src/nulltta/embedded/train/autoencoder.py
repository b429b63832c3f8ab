"""Stage 1: the autoencoder, trained on fresh scenes; also what all autoencoder stages share."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..autoencoder import PatchAutoencoder
from ..grammar import Size, sample
from ..render import render_batch
from .loop import Budget, Draws, Recipe, load_trained, train

NAME = "autoencoder"
BATCH = 24
PCA_IMAGES = 1024


def scenes(rng: random.Random, n: int, size: Size) -> Tensor:
    """Render n training scenes as images (n, 3, 64, 64) in [-1, 1]."""
    return render_batch([sample(rng, size) for _ in range(n)], rng).float() / 127.5 - 1


def noised(z: Tensor, most: float, draws: Draws) -> Tensor:
    """Add Gaussian noise to latents (B, C, h, w), for each image with its own standard deviation in [0, most]."""
    noise = torch.randn(z.shape, generator=draws.torch).to(z)
    return z + most * torch.rand(len(z), 1, 1, 1, generator=draws.torch).to(z) * noise


def reconstruction_loss(y: Tensor, images: Tensor) -> tuple[Tensor, float]:
    """Return the L1 error of pixels plus half that of differences between neighbouring pixels, and the former alone."""
    l1 = (y - images).abs().mean()
    edges = (_differences(y) - _differences(images)).abs().mean()
    return l1 + 0.5 * edges, l1.item()


def _differences(x: Tensor) -> Tensor:
    """Return the horizontal and vertical differences of neighbouring pixels, one row per image."""
    return torch.cat([x.diff(dim=-1).flatten(1), x.diff(dim=-2).flatten(1)], 1)


def train_on_scenes(
    name: str,
    model: PatchAutoencoder,
    loss: Callable[[Tensor, Draws], tuple[Tensor, dict[str, float]]],
    size: Size,
    budget: Budget,
    lr: float,
) -> None:
    """Train an autoencoder on fresh training scenes until the budget is spent.

    Args:
        name: the stage's name, which names the checkpoint and seeds the draws.
        model: the autoencoder that learns.
        loss: maps images (B, 3, 64, 64) in [-1, 1] and the step's random streams to a scalar loss and figures to log.
        size: the vocabulary of the scenes; the batch is eight times larger for "gpu".
        budget: how long to train, and where.
        lr: the peak learning rate.
    """
    batch = BATCH if size == "cpu" else 8 * BATCH

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        return loss(scenes(draws.python, batch, size).to(budget.device), draws)

    train(Recipe(name, model, step, batch, lr=lr, weight_decay=0.0), budget)


def loss(model: PatchAutoencoder, images: Tensor, draws: Draws) -> tuple[Tensor, dict[str, float]]:
    """Return the error of reconstructing images from noised latents, and how far the latents are from white.

    The noise teaches the decoder to forgive the denoiser's errors.
    """
    z = model.latents(images).float()
    error, l1 = reconstruction_loss(model.pixels(noised(z, 0.3, draws)).float(), images)
    white = (z.std((0, 2, 3)) - 1).pow(2).mean() + z.mean((0, 2, 3)).pow(2).mean()
    return error + 0.01 * white, {"l1": l1, "white": white.item()}


def run(size: Size, budget: Budget) -> None:
    """Train the autoencoder, from principal components on, until the budget is spent."""
    torch.manual_seed(0)
    model = PatchAutoencoder()
    model.fit_linear(scenes(random.Random(0), PCA_IMAGES, size))
    train_on_scenes(NAME, model, partial(loss, model), size, budget, lr=1.5e-3)


def load(size: Size, budget: Budget) -> PatchAutoencoder:
    """Load the trained autoencoder in eval mode and whiten its latents over training scenes."""
    model: PatchAutoencoder = load_trained(PatchAutoencoder(), budget.folder, NAME)
    model.whiten(scenes(random.Random(1), PCA_IMAGES, size))
    return model
