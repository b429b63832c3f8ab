"""Stage 5: the judge, trained on fresh scenes of the training compositions."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.nn import functional

from ..grammar import Scene, Size, sample, vocabulary
from ..judge import FACTS, Judge, JudgeNet, Reading
from ..networks import fit_pixels
from ..render import render_batch, to_unit
from . import autoencoder
from .augment import Augmentation, Redrawn, usual
from .loop import Budget, Draws, Recipe, load_trained, train

NAME = "judge"
BATCH = 64


def targets(scenes: list[Scene], size: Size) -> Reading:
    """Return what the judge should read: objects (B, O) of 0 and 1, and (B,) class indices for the other facts."""
    vocab = vocabulary(size)
    objects = torch.tensor([[float(name in scene.objects) for name in vocab.objects] for scene in scenes])
    count = torch.tensor([scene.count - 1 for scene in scenes])
    background = torch.tensor([vocab.backgrounds.index(scene.background) for scene in scenes])
    style = torch.tensor([vocab.styles.index(scene.style) for scene in scenes])
    return Reading(objects, count, background, style)


def loss(net: JudgeNet, augment: Augmentation, scenes: list[Scene], draws: Draws) -> Tensor:
    """Return the cross-entropies of all facts; the objects', most of which are absent, counts ten times."""
    size: Size = net.config["size"]
    device = next(net.parameters()).device
    images = augment(to_unit(render_batch(scenes, draws.python)).to(device), draws.torch)
    reading, truth = net(fit_pixels(images)), targets(scenes, size)
    value = 10 * functional.binary_cross_entropy_with_logits(reading.objects, truth.objects.to(device))
    for fact in FACTS[1:]:
        value = value + functional.cross_entropy(getattr(reading, fact), getattr(truth, fact).to(device))
    return value


def run(size: Size, budget: Budget) -> None:
    """Train until the budget is spent; the augmentation needs the autoencoder's checkpoint."""
    augment = usual(Redrawn(autoencoder.load(size, budget).to(budget.device), most=0.4))
    torch.manual_seed(23)
    net = JudgeNet(size)
    batch = BATCH if size == "cpu" else 8 * BATCH

    def step(draws: Draws) -> tuple[Tensor, dict[str, float]]:
        return loss(net, augment, [sample(draws.python, size) for _ in range(batch)], draws), {}

    train(Recipe(NAME, net, step, batch, lr=2e-3), budget)


def load(size: Size, budget: Budget) -> JudgeNet:
    """Load the trained network, in eval mode."""
    return load_trained(JudgeNet(size), budget.folder, NAME)


def accuracy(judge: Judge, n: int = 1000, held: bool | None = None, seed: int = 1) -> dict[str, float]:
    """Return how often the judge reads each fact right on n scenes; `held` is as in `sample`."""
    rng = random.Random(seed)
    scenes = [sample(rng, judge.size, held=held) for _ in range(n)]
    shown = judge.read(to_unit(render_batch(scenes, rng)))
    right = {
        fact: sum(_same(getattr(a, fact), getattr(b, fact)) for a, b in zip(scenes, shown, strict=True))
        for fact in FACTS
    }
    return {fact: hits / n for fact, hits in right.items()}


def _same(a: object, b: object) -> bool:
    """Compare two values of a fact; the order of objects does not count."""
    return set(a) == set(b) if isinstance(a, tuple) and isinstance(b, tuple) else a == b
