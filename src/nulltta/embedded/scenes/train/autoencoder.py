"""Stage "autoencoder": 4×4 patches with six channels, on fresh scenes, by the emoji world's loss."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from ...autoencoder import PatchAutoencoder
from ...train.autoencoder import loss
from ...train.loop import Budget, Draws, Recipe, load_trained, train
from ..grammar import Claim, caption, coloured, draw, sample
from ..judge import SceneJudge
from ..render import render

NAME = "autoencoder"
BATCH = 24
STEPS = 1500
PCA_IMAGES = 512
SURVIVAL_SCENES = 500


def scenes(rng: random.Random, n: int) -> tuple[list[Claim], Tensor]:
    """Draw n training scenes: what their captions state, and images (n, 3, 64, 64) in [-1, 1]."""
    pairs = [sample(rng) for _ in range(n)]
    return [stated for stated, _ in pairs], render([shown for _, shown in pairs], rng).float() / 127.5 - 1


def draw_images(rng: random.Random) -> Tensor:
    """Draw a step's images."""
    return scenes(rng, BATCH)[1]


def build() -> PatchAutoencoder:
    """Return the untrained autoencoder; three `block_out_channels` make patches of four pixels."""
    model: PatchAutoencoder = PatchAutoencoder(
        latent_channels=6, width=64, blocks=2, encoder_width=48, encoder_blocks=1, block_out_channels=(64, 64, 64)
    )
    return model


def run(budget: Budget) -> None:
    """Train to the end of the stage."""
    torch.manual_seed(0)
    model = build()
    model.fit_linear(scenes(random.Random(0), PCA_IMAGES)[1])

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        return loss(model, draws.data.to(budget.device), draws)

    train(Recipe(NAME, model, step, BATCH, draw_images, lr=1.5e-3, weight_decay=0.0, steps=STEPS), budget)
    for noise, share in survival(load(budget)).items():
        print(f"{share:.1%} of scenes survive with noise of {noise:g} standard deviations on the latents", flush=True)


def load(budget: Budget) -> PatchAutoencoder:
    """Return the trained autoencoder, with white latents, in eval mode."""
    model = build()
    load_trained(model, budget.folder, NAME)
    model.whiten(scenes(random.Random(1), PCA_IMAGES)[1])
    return model


@torch.no_grad()
def survival(model: PatchAutoencoder, noises: Sequence[float] = (0.0, 0.3, 0.5)) -> dict[float, float]:
    """Return the share of scenes of which the judge still reads everything once they were encoded and decoded.

    Args:
        model: the autoencoder.
        noises: standard deviations of Gaussian noise on the latents, whose own is 1.

    Returns:
        The share by noise, of SURVIVAL_SCENES scenes of the whole grammar, training scenes or not.
    """
    rng, generator = random.Random(99), torch.Generator().manual_seed(99)
    shown = [coloured(draw(rng), rng) for _ in range(SURVIVAL_SCENES)]
    latents = model.latents(render(shown, rng).float() / 127.5 - 1)
    found = {}
    for noise in noises:
        images = model.pixels(latents + noise * torch.randn(latents.shape, generator=generator)) / 2 + 0.5
        right = SceneJudge().all_right(images.clamp(0, 1), [caption(claim) for claim in shown])
        found[noise] = float(right.mean())
    return found
