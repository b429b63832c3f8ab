"""The networks of the scorer `clip-b` and of the judge: a convolutional image tower and a bag-of-words text tower."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

PIXELS = 64
Network = TypeVar("Network", bound=nn.Module)


def fit_pixels(images: Tensor) -> Tensor:
    """Resize images (B, 3, H, W) in [0, 1] to (B, 3, 64, 64) in [-1, 1], differentiably."""
    if images.shape[-2:] != (PIXELS, PIXELS):
        images = functional.interpolate(images, (PIXELS, PIXELS), mode="bilinear", antialias=True)
    return images * 2 - 1


class Block(nn.Module):
    """A convolution of stride 2, then a residual one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.first = nn.BatchNorm2d(outputs)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.first(self.down(x)))
        return x + functional.silu(self.second(self.conv(x)))


class ConvTower(nn.Module):
    """Images (B, 3, 64, 64) in [-1, 1] to (B, outputs): four halvings of the grid, then a linear layer."""

    def __init__(self, outputs: int, width: int = 32) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 6 * width]
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(widths)))
        self.squeeze = nn.Conv2d(widths[-1], 64, 1)
        self.head = nn.Linear(widths[-1] + 64 * 16, outputs)

    def forward(self, pixels: Tensor) -> Tensor:
        grid = self.blocks(pixels)
        seen = torch.cat([grid.mean((2, 3)), functional.silu(self.squeeze(grid)).flatten(1)], 1)
        out: Tensor = self.head(seen)
        return out


class BagOfWords(nn.Module):
    """Token ids (B, L) to (B, outputs): means of word vectors before and after a layer, then a small network."""

    def __init__(self, vocab: int, end: int, outputs: int, width: int = 192) -> None:
        super().__init__()
        self.end = end
        self.words = nn.Embedding(vocab, width)
        self.each = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.pooled = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, outputs))

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.words(ids)
        inside = (ids != self.end).unsqueeze(-1).to(vectors.dtype)  # the padding is the end token
        inside = inside / inside.sum(1, keepdim=True)
        both = [(vectors * inside).sum(1), (self.each(vectors) * inside).sum(1)]
        out: Tensor = self.pooled(torch.cat(both, 1))
        return out


class TwoTowers(nn.Module):
    """A contrastive image-text network with the interface of transformers' CLIPModel.

    Args:
        image: images (B, 3, 64, 64) in [-1, 1] to (B, F).
        text: token ids (B, L) to (B, F).
        config: the constructor's arguments of the subclass.

    Attributes:
        config: for the checkpoint's config.json.
    """

    def __init__(self, image: nn.Module, text: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.image, self.text, self.config = image, text, config
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Return the features (B, F) of images (B, 3, 64, 64) in [-1, 1], not normalised."""
        out: Tensor = self.image(pixel_values)
        return out

    def get_text_features(self, input_ids: Tensor) -> Tensor:
        """Return the features (B, F) of token ids (B, L), not normalised."""
        out: Tensor = self.text(input_ids)
        return out


class ConvClip(TwoTowers):
    """The network of the held-out scorer `clip-b`: a `ConvTower` for images and a `BagOfWords` for prompts."""

    def __init__(self, vocab: int, end: int, features: int = 128, width: int = 32) -> None:
        config = {"vocab": vocab, "end": end, "features": features, "width": width}
        super().__init__(ConvTower(features, width), BagOfWords(vocab, end, features), config)


def restore(kind: Callable[..., Network], folder: Path) -> Network:
    """Build a network of this package from a folder's config.json and load its model.safetensors."""
    network = kind(**json.loads((folder / "config.json").read_text()))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network
