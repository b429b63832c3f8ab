"""Last stage but one: the decoder trains on while the latents stay as they are, and the encoder shrinks.

Once the denoiser has been trained on the latents they must not move, but the way back to pixels may still improve.
Sampling never encodes, so the shipped encoder is a small one that imitates the one it was trained with.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..autoencoder import PatchAutoencoder
from ..grammar import Size
from . import autoencoder
from .autoencoder import noised, reconstruction_loss, train_on_scenes
from .loop import Budget, Draws, load_trained

NAME = "decoder"


def build() -> PatchAutoencoder:
    """Return an untrained autoencoder with a full decoder and a small encoder."""
    model: PatchAutoencoder = PatchAutoencoder(encoder_width=96, encoder_blocks=2)
    return model


def loss(
    model: PatchAutoencoder, teacher: PatchAutoencoder, images: Tensor, draws: Draws
) -> tuple[Tensor, dict[str, float]]:
    """Return the error of decoding the teacher's noised latents, plus the encoder's squared distance from the teacher.

    Args:
        model: the autoencoder that learns.
        teacher: the frozen autoencoder whose latents the denoiser was trained on.
        images: training images (B, 3, 64, 64) in [-1, 1].
        draws: the step's random streams.
    """
    with torch.no_grad():
        z = teacher.latents(images).float()
    error, l1 = reconstruction_loss(model.pixels(noised(z, 0.3, draws)).float(), images)
    imitation = (model.latents(images).float() - z).pow(2).mean()
    return error + 0.1 * imitation, {"l1": l1, "imitation": imitation.item()}


def run(size: Size, budget: Budget) -> None:
    """Train until the budget is spent, from the decoder and linear layers of the autoencoder's checkpoint."""
    teacher = autoencoder.load(size, budget).to(budget.device).requires_grad_(False)
    torch.manual_seed(31)
    model = build()
    model.load_state_dict({k: v for k, v in teacher.state_dict().items() if not k.startswith("encoder.")}, strict=False)
    train_on_scenes(NAME, model, partial(loss, model, teacher), size, budget, lr=8e-4)


def load(budget: Budget) -> PatchAutoencoder:
    """Load the autoencoder that ships, in eval mode."""
    return load_trained(build(), budget.folder, NAME)
