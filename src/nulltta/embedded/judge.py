"""The judge reads objects, count, background and style off an image and compares them with the prompt.

It measures and is never optimised, so its public functions run without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nulltta.errors import LoadError

from . import WEIGHTS
from .grammar import Facts, Size, Vocabulary, parse, vocabulary
from .networks import ConvTower, fit_pixels, restore

FACTS = ("objects", "count", "background", "style")


@dataclass(frozen=True)
class Reading:
    """The judge's logits for B images.

    Attributes:
        objects: (B, O), whether each object is there, independently of the others.
        count: (B, 3), one, two or three things.
        background: (B, number of backgrounds).
        style: (B, number of styles).
    """

    objects: Tensor
    count: Tensor
    background: Tensor
    style: Tensor


class JudgeNet(nn.Module):
    """A convolutional tower with four heads.

    Args:
        size: the vocabulary that it knows.
        width: channels of the first level.

    Attributes:
        config: the constructor's arguments, for the checkpoint's config.json.
    """

    def __init__(self, size: Size = "cpu", width: int = 32) -> None:
        super().__init__()
        vocab = vocabulary(size)
        self.config: dict[str, Any] = {"size": size, "width": width}
        self.parts = (len(vocab.objects), 3, len(vocab.backgrounds), len(vocab.styles))
        self.tower = ConvTower(sum(self.parts), width)

    def forward(self, pixels: Tensor) -> Reading:
        """Read images (B, 3, 64, 64) in [-1, 1]."""
        return Reading(*self.tower(pixels).float().split(self.parts, 1))


def seen(reading: Reading, vocab: Vocabulary) -> list[Facts]:
    """Return what each image shows: the objects that are more likely there than not, or else the likeliest one, and
    the likeliest count, background and style."""
    found = []
    for objects, count, background, style in zip(
        reading.objects, reading.count, reading.background, reading.style, strict=True
    ):
        present = {int(k) for k in (objects > 0).nonzero()} | {int(objects.argmax())}
        found.append(
            Facts(
                tuple(vocab.objects[k] for k in sorted(present)),
                int(count.argmax()) + 1,
                vocab.backgrounds[int(background.argmax())],
                vocab.styles[int(style.argmax())],
            )
        )
    return found


def compare(stated: Facts, shown: Facts) -> dict[str, bool]:
    """Return for each fact that a prompt states whether the image shows it; the objects must be the same set."""
    verdict = {
        "objects": set(stated.objects) == set(shown.objects),
        "count": stated.count == shown.count,
        "background": stated.background == shown.background,
        "style": stated.style == shown.style,
    }
    return {fact: verdict[fact] for fact in FACTS if getattr(stated, fact) is not None}


class Judge:
    """Checks the facts that prompts state on images; deliberately not differentiable.

    Args:
        net: the trained network, which is frozen.

    Attributes:
        size: the vocabulary that the judge knows.
    """

    name = "facts"
    differentiable = False

    def __init__(self, net: JudgeNet) -> None:
        self.net = net.eval().requires_grad_(False)
        self.size: Size = net.config["size"]

    @torch.no_grad()
    def read(self, images: Tensor) -> list[Facts]:
        """Return what each image (B, 3, H, W) in [0, 1] shows."""
        first = next(self.net.parameters())
        return seen(self.net(fit_pixels(images.to(first))), vocabulary(self.size))

    def facts(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the share of each prompt's facts that its image shows: (B,) in [0, 1].

        Args:
            images: (B, 3, H, W) in [0, 1].
            prompts: B prompts.

        Raises:
            InvalidValue: if a prompt is outside the grammar.
        """
        stated = [parse(prompt, self.size) for prompt in prompts]
        verdicts = [compare(a, b) for a, b in zip(stated, self.read(images), strict=True)]
        return torch.tensor([sum(v.values()) / len(v) for v in verdicts])

    __call__ = facts

    def report(self, image: Tensor, prompt: str) -> dict[str, bool]:
        """Return which of a prompt's facts one image (3, H, W) or (1, 3, H, W) shows.

        Raises:
            InvalidValue: if the prompt is outside the grammar.
        """
        return compare(parse(prompt, self.size), self.read(image.reshape(1, *image.shape[-3:]))[0])


def load_judge(device: torch.device | str = "cpu", folder: Path = WEIGHTS) -> Judge:
    """Load the judge of the embedded model.

    Args:
        device: where to put it.
        folder: the folder of the weights, by default the shipped ones.

    Raises:
        LoadError: if its weights are missing.
    """
    place = folder / "judge"
    if not (place / "model.safetensors").exists():
        raise LoadError(f"the embedded model's judge is missing from {folder}: `make world` trains it")
    return Judge(restore(JudgeNet, place).float().to(device))
