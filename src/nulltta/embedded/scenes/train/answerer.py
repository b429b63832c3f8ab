"""Stage "scenes-questions": a patch transformer learns to answer questions about scenes."""

from __future__ import annotations

import random

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ...networks import fit_pixels
from ...train.augment import noise, sometimes
from ...train.loop import Budget, Draws, Recipe, load_trained, train
from ..grammar import Claim, sample
from ..networks import Answerer
from ..questions import ANSWERS, PARTS, Question, ask, encode
from ..render import render
from ..shapes import COLOURS, SHAPES

NAME = "scenes-questions"
BATCH = 64
STEPS = 4000
GPU_STEPS = 8000
QUESTIONS = 6


def build() -> Answerer:
    """Return the untrained network."""
    torch.manual_seed(91)
    return Answerer(PARTS, len(ANSWERS))


def question(shown: Claim, rng: random.Random) -> Question:
    """Draw a question about a scene: half are implied by its caption, the others are about any shape and colour."""
    if rng.random() < 0.5:
        return rng.choice(ask(shown))
    shape, colour = rng.choice(SHAPES), rng.choice(tuple(COLOURS))
    if rng.random() < 0.5:
        shape = rng.choice(shown.groups).shape
    of_shape = [group for group in shown.groups if group.shape == shape]
    if rng.random() < 0.4:
        return Question("of a shape", shape, next(iter(COLOURS)), sum(group.number for group in of_shape))
    number = sum(group.number for group in of_shape if group.colour == colour)
    return Question("of a shape and colour", shape, colour, number)


def draw(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a step's images (BATCH, 3, 64, 64), uint8, its questions (BATCH * QUESTIONS, parts), and their answers."""
    shown = [sample(rng)[1] for _ in range(BATCH)]
    images = render(shown, rng)
    return images, *encode([question(scene, rng) for scene in shown for _ in range(QUESTIONS)])


def noisy_resampled(images: Tensor, generator: Generator) -> Tensor:
    """Augment: a batch is now and then scaled down and up again, and images get noise."""
    side = int(torch.randint(36, 65, (), generator=generator))
    small = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    images = sometimes(images, functional.interpolate(small, images.shape[-2:], mode="bilinear"), 0.5, generator)
    return sometimes(images, noise(images, generator), 0.5, generator).clamp(0, 1)


def run(budget: Budget) -> None:
    """Train to the end of the stage; no other stage is needed."""
    model = build()

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        drawn, asked, answers = draws.data
        images = noisy_resampled(drawn.to(budget.device).float() / 255, draws.torch)
        logits = model(fit_pixels(images), asked.view(BATCH, QUESTIONS, -1).to(budget.device)).flatten(0, 1).float()
        answers = answers.to(budget.device)
        right = (logits.argmax(1) == answers).float().mean().item()
        return functional.cross_entropy(logits, answers), {"accuracy": right}

    steps = STEPS if budget.device == "cpu" else GPU_STEPS
    train(Recipe(NAME, model, step, BATCH, draw, lr=1e-3, weight_decay=0.05, steps=steps), budget)


def load(budget: Budget) -> Answerer:
    """Return the trained network, in eval mode."""
    return load_trained(build(), budget.folder, NAME)
