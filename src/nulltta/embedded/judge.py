"""The judge: reads objects, count, background and style off an image, and compares them with the prompt.

It is never a target: its public functions run without gradient.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nulltta.errors import InvalidValue

from . import WEIGHTS
from .grammar import Facts, Size, Vocabulary, parse, vocabulary
from .networks import ConvTower, fit_pixels

FACTS = ("objects", "count", "background", "style")


@dataclass(frozen=True)
class Reading:
    """Logits of what is seen: objects (B, O), each present or not; count (B, 3), background and style: one of."""

    objects: Tensor
    count: Tensor
    background: Tensor
    style: Tensor


class JudgeNet(nn.Module):
    """One convolutional tower with four heads. `config` rebuilds it."""

    def __init__(self, size: Size = "cpu", width: int = 32) -> None:
        super().__init__()
        vocab = vocabulary(size)
        self.config: dict[str, Any] = {"size": size, "width": width}
        self.parts = (len(vocab.objects), 3, len(vocab.backgrounds), len(vocab.styles))
        self.tower = ConvTower(sum(self.parts), width)

    def forward(self, pixels: Tensor) -> Reading:
        """(B, 3, 64, 64) in [-1, 1] -> what is seen."""
        return Reading(*self.tower(pixels).float().split(self.parts, 1))


def seen(reading: Reading, vocab: Vocabulary) -> list[Facts]:
    """What each image shows: every object more likely there than not (at least the likeliest), one of the rest."""
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
    """For each fact that the prompt states, whether the image shows it. Objects: these and no others."""
    verdict = {
        "objects": set(stated.objects) == set(shown.objects),
        "count": stated.count == shown.count,
        "background": stated.background == shown.background,
        "style": stated.style == shown.style,
    }
    return {fact: verdict[fact] for fact in FACTS if getattr(stated, fact) is not None}


class Judge:
    """Checks prompts' facts on images. Not differentiable, on purpose."""

    name = "facts"
    differentiable = False

    def __init__(self, net: JudgeNet) -> None:
        self.net = net.eval().requires_grad_(False)
        self.size: Size = net.config["size"]

    @torch.no_grad()
    def read(self, images: Tensor) -> list[Facts]:
        """What each image (B, 3, H, W) in [0, 1] shows."""
        first = next(self.net.parameters())
        return seen(self.net(fit_pixels(images.to(first))), vocabulary(self.size))

    def facts(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) the share of the facts of each prompt that its image shows.

        Raises:
            NullTTAError: a prompt outside the grammar.
        """
        stated = [parse(prompt, self.size) for prompt in prompts]
        verdicts = [compare(a, b) for a, b in zip(stated, self.read(images), strict=True)]
        return torch.tensor([sum(v.values()) / len(v) for v in verdicts])

    __call__ = facts

    def report(self, image: Tensor, prompt: str) -> dict[str, bool]:
        """Fact by fact for one image (3, H, W) or (1, 3, H, W): which of the prompt's facts it shows."""
        return compare(parse(prompt, self.size), self.read(image.reshape(1, *image.shape[-3:]))[0])


def load_judge(device: torch.device | str = "cpu", folder: Path = WEIGHTS) -> Judge:
    """The shipped judge.

    Raises:
        NullTTAError: its weights are not there.
    """
    place = folder / "judge"
    if not (place / "model.safetensors").exists():
        raise InvalidValue(f"the embedded world's judge is missing from {folder}; `make world` trains it")
    net = JudgeNet(**json.loads((place / "config.json").read_text()))
    net.load_state_dict(load_file(place / "model.safetensors"))
    return Judge(net.float().to(device))
