"""Last stage: a tiny decoder, a tenth of the shipped one's size, for the inner steps of an alignment.

It imitates the shipped decoder on noised latents, which is what clean estimates are early in sampling.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..autoencoder import PatchAutoencoder
from ..grammar import Size
from . import decoder
from .autoencoder import noised, reconstruction_loss, train_on_scenes
from .loop import Budget, Draws, load_trained

NAME = "tiny"


def build() -> PatchAutoencoder:
    """Return an untrained autoencoder with a tiny decoder; its encoder is never used."""
    model: PatchAutoencoder = PatchAutoencoder(width=48, blocks=1, encoder_width=8, encoder_blocks=0)
    return model


def loss(
    model: PatchAutoencoder, teacher: PatchAutoencoder, images: Tensor, draws: Draws
) -> tuple[Tensor, dict[str, float]]:
    """Return the distance of what both decode from the same noised latents.

    Args:
        model: the autoencoder that learns.
        teacher: the frozen autoencoder that ships.
        images: training images (B, 3, 64, 64) in [-1, 1].
        draws: the step's random streams.
    """
    with torch.no_grad():
        z = noised(teacher.latents(images), 0.5, draws)
        target = teacher.pixels(z).float()
    error, l1 = reconstruction_loss(model.pixels(z).float(), target)
    return error, {"l1": l1}


def run(size: Size, budget: Budget) -> None:
    """Train until the budget is spent, from the linear layers of the decoder stage's checkpoint."""
    teacher = decoder.load(budget).to(budget.device).requires_grad_(False)
    torch.manual_seed(37)
    model = build()
    model.load_state_dict({k: v for k, v in teacher.state_dict().items() if k.startswith("linear")}, strict=False)
    train_on_scenes(NAME, model, partial(loss, model, teacher), size, budget, lr=2e-3)


def load(budget: Budget) -> PatchAutoencoder:
    """Load the trained tiny decoder, in eval mode."""
    return load_trained(build(), budget.folder, NAME)
