"""Last stage: the decoder learns on while the latents stay as they are, and the encoder shrinks.

Once the denoiser has been trained on the latents they must not move, but the way back to pixels may still improve.
Sampling never encodes, so the shipped encoder is a small one that imitates the one it was trained with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..autoencoder import PatchAutoencoder
from ..grammar import Size
from . import autoencoder
from .autoencoder import differences, scenes
from .loop import Budget, Draws, Recipe, load_trained, train

NAME = "decoder"
BATCH = 24


def build() -> PatchAutoencoder:
    model: PatchAutoencoder = PatchAutoencoder(encoder_width=96, encoder_blocks=2)
    return model


def start(teacher: PatchAutoencoder) -> PatchAutoencoder:
    """The teacher's decoder and linear paths, with an untrained small encoder."""
    torch.manual_seed(31)
    model = build()
    kept = {key: value for key, value in teacher.state_dict().items() if not key.startswith("encoder.")}
    model.load_state_dict(model.state_dict() | kept)
    return model


def loss(
    model: PatchAutoencoder, teacher: PatchAutoencoder, images: Tensor, draws: Draws
) -> tuple[Tensor, dict[str, float]]:
    """L1 of pixels and their differences from the teacher's noised latents, and the encoder's squared error."""
    with torch.no_grad():
        z = teacher.latents(images).float()
    noise = torch.randn(z.shape, generator=draws.torch).to(z)
    strength = 0.3 * torch.rand(len(z), 1, 1, 1, generator=draws.torch).to(z)
    y = model.pixels(z + strength * noise).float()
    l1 = (y - images).abs().mean()
    edges = (differences(y) - differences(images)).abs().mean()
    imitation = (model.latents(images).float() - z).pow(2).mean()
    return l1 + 0.5 * edges + 0.1 * imitation, {"l1": l1.item(), "imitation": imitation.item()}


def run(size: Size, budget: Budget) -> None:
    """Train to the end of the budget. Needs the autoencoder's checkpoint."""
    teacher = autoencoder.load(size, budget).to(budget.device).eval().requires_grad_(False)
    model = start(teacher)
    batch = BATCH if size == "cpu" else 8 * BATCH

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        return loss(model, teacher, scenes(draws.python, batch, size).to(budget.device), draws)

    train(Recipe(NAME, model, step, batch, lr=8e-4, weight_decay=0.0), budget)


def load(budget: Budget) -> PatchAutoencoder:
    """The autoencoder that ships, in eval mode."""
    model = build()
    load_trained(model, budget.folder, NAME)
    return model
