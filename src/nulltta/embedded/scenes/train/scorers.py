"""Stages "scenes-clip" and "scenes-conv": contrastive scorers, in batches of scenes that differ in one thing.

No augmentation is common to two scorers: the target sees what the autoencoder redraws, in other shades; `scenes-conv`
sees shifted, covered and blurred images; and the questions are asked about noisy and resampled ones.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ...train.augment import Augmentation, Redrawn, blur, patch_out, shade, shift, sometimes
from ...train.loop import Budget, Draws, Recipe, load_trained, train
from ...train.scorers import build_clip, loss
from ..grammar import Claim, caption, coloured, edit, held_out, sample
from ..networks import ConvPair
from ..render import render
from ..scorers import TARGET
from . import autoencoder
from .text import LENGTH, fit_table, tokenizer

BATCH = 64
FAMILY = 4
STEPS = {"scenes-clip": 3000, "scenes-conv": 2000}
GPU_STEPS = {"scenes-clip": 6000, "scenes-conv": 4000}


def families(rng: random.Random, n: int) -> tuple[list[Claim], list[Claim]]:
    """Draw n captions and scenes in families of FAMILY: one scene, and others that differ from it in one thing."""
    stated, shown = list[Claim](), list[Claim]()
    while len(stated) < n:
        first, scene = sample(rng)
        stated.append(first)
        shown.append(scene)
        for _ in range(FAMILY - 1):
            other = edit(first, rng)
            scene = coloured(other, rng)
            while held_out(scene):
                other = edit(first, rng)
                scene = coloured(other, rng)
            stated.append(other)
            shown.append(scene)
    return stated[:n], shown[:n]


def draw(rng: random.Random) -> tuple[Tensor, list[str], Tensor]:
    """Draw a step's images (BATCH, 3, 64, 64), uint8, its captions, and which captions fit which images."""
    stated, shown = families(rng, BATCH)
    return render(shown, rng), [caption(claim) for claim in stated], fit_table(stated, shown)


def build(name: str) -> nn.Module:
    """Return an untrained scorer's network."""
    words = tokenizer()
    torch.manual_seed(6 if name == TARGET else 78)
    return build_clip(words, text_layers=2) if name == TARGET else ConvPair(len(words), LENGTH)


def redrawn_in_other_shades(redrawn: Redrawn) -> Augmentation:
    """Return the augmentation of the target scorer."""

    def augment(images: Tensor, generator: Generator) -> Tensor:
        images = redrawn(images, 0.5, generator)
        return sometimes(images, shade(images, generator), 0.5, generator).clamp(0, 1)

    return augment


def shifted_covered_blurred(images: Tensor, generator: Generator) -> Tensor:
    """Augment for `scenes-conv`."""
    images = shift(images, generator)
    images = sometimes(images, patch_out(images, generator, side=6), 0.2, generator)
    return sometimes(images, blur(images, generator), 0.5, generator)


def run(name: str, budget: Budget) -> None:
    """Train a scorer to the end of its stage; the target's augmentation needs the autoencoder's checkpoint."""
    augment: Augmentation = shifted_covered_blurred
    if name == TARGET:
        augment = redrawn_in_other_shades(Redrawn(autoencoder.load(budget).to(budget.device), most=0.5))
    model, words = build(name), tokenizer()

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        drawn, captions, fits = draws.data
        images = augment(drawn.to(budget.device).float() / 255, draws.torch)
        found: tuple[Tensor, dict[str, float]] = loss(model, words, images, captions, fits)
        return found

    steps = (STEPS if budget.device == "cpu" else GPU_STEPS)[name]
    train(Recipe(name, model, step, BATCH, draw, lr=1e-3, weight_decay=0.05, steps=steps), budget)


def load(name: str, budget: Budget) -> nn.Module:
    """Return a trained scorer's network, in eval mode."""
    return load_trained(build(name), budget.folder, name)


@torch.no_grad()
def accuracy(scorer: Any, n: int = 200, seed: int = 0) -> float:
    """Return how often a held-out scene's caption scores above four that each differ from it in one thing."""
    rng, pairs = random.Random(seed), list[tuple[Claim, Claim]]()
    while len(pairs) < n:
        stated, _ = sample(rng)
        other = edit(stated, rng)
        if held_out(other):
            pairs.append((other, coloured(other, rng)))
    prompts = [caption(claim) for stated, _ in pairs for claim in (stated, *(edit(stated, rng) for _ in range(4)))]
    images = (render([shown for _, shown in pairs], rng).float() / 255).repeat_interleave(5, 0)
    scores = scorer(images, prompts).view(n, 5)
    return float((scores[:, 1:].max(1).values < scores[:, 0]).float().mean())
