"""A tiny decoder for the inner steps of an alignment: it imitates the shipped one, a tenth of its size.

It is trained after the decoder, on latents with noise in them, as clean estimates have; nothing but the inner steps
uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..autoencoder import PatchAutoencoder
from ..grammar import Size
from . import decoder
from .autoencoder import differences, scenes
from .loop import Budget, Draws, Recipe, load_trained, train

NAME = "tiny"
BATCH = 24


def build() -> PatchAutoencoder:
    model: PatchAutoencoder = PatchAutoencoder(width=48, blocks=1, encoder_width=8, encoder_blocks=0)
    return model


def start(teacher: PatchAutoencoder) -> PatchAutoencoder:
    """The teacher's linear paths, with an untrained small decoder; its encoder is never used."""
    torch.manual_seed(37)
    model = build()
    linear = {key: value for key, value in teacher.state_dict().items() if key.startswith("linear")}
    model.load_state_dict(model.state_dict() | linear)
    return model


def loss(
    model: PatchAutoencoder, teacher: PatchAutoencoder, images: Tensor, draws: Draws
) -> tuple[Tensor, dict[str, float]]:
    """L1 of pixels and of their differences to what the teacher decodes from the same noised latents."""
    with torch.no_grad():
        z = teacher.latents(images)
        noise = torch.randn(z.shape, generator=draws.torch).to(z)
        z = z + 0.5 * torch.rand(len(z), 1, 1, 1, generator=draws.torch).to(z) * noise
        target = teacher.pixels(z).float()
    y = model.pixels(z).float()
    l1 = (y - target).abs().mean()
    edges = (differences(y) - differences(target)).abs().mean()
    return l1 + 0.5 * edges, {"l1": l1.item()}


def run(size: Size, budget: Budget) -> None:
    """Train to the end of the budget. Needs the decoder's checkpoint."""
    teacher = decoder.load(budget).to(budget.device).eval().requires_grad_(False)
    model = start(teacher)
    batch = BATCH if size == "cpu" else 8 * BATCH

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        return loss(model, teacher, scenes(draws.python, batch, size).to(budget.device), draws)

    train(Recipe(NAME, model, step, batch, lr=2e-3, weight_decay=0.0), budget)


def load(budget: Budget) -> PatchAutoencoder:
    """The trained decoder, in eval mode."""
    model = build()
    load_trained(model, budget.folder, NAME)
    return model
