"""The networks of the held-out scorers: a convolutional pair of towers, and a patch transformer that answers questions.

Neither shares a tower with the target scorer or with the generator's text encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..networks import PIXELS, ConvTower, TwoTowers


class ConvWords(nn.Module):
    """Token ids (B, length) to (B, outputs): convolutions over word vectors, so that the order of words counts."""

    def __init__(self, vocab: int, length: int, outputs: int, width: int = 96) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab, width)
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)
        self.head = nn.Linear(length * width, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids).transpose(1, 2)
        x = x + functional.silu(self.first(x))
        x = x + functional.silu(self.second(x))
        out: Tensor = self.head(x.flatten(1))
        return out


class ConvPair(TwoTowers):
    """The network of the contrastive held-out scorer: a `ConvTower` for images and `ConvWords` for prompts."""

    def __init__(self, vocab: int, length: int, features: int = 96, width: int = 24) -> None:
        config = {"vocab": vocab, "length": length, "features": features, "width": width}
        super().__init__(ConvTower(features, width), ConvWords(vocab, length, features), config)


class Answerer(nn.Module):
    """A patch transformer that reads an image, and a query that looks at its patches for the answer to a question.

    Args:
        parts: the number of choices for each part of a question.
        answers: the number of answers.
        width: of the tokens.
        layers: of the image's transformer.
        heads: of all attention.
        patch: the side of a patch in pixels.

    Attributes:
        config: the constructor's arguments, for the checkpoint's config.json.
    """

    def __init__(
        self, parts: tuple[int, ...], answers: int, width: int = 96, layers: int = 4, heads: int = 4, patch: int = 8
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"parts": list(parts), "answers": answers, "width": width, "layers": layers,
                                       "heads": heads, "patch": patch}  # fmt: skip
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, (PIXELS // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.image = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.parts = nn.ModuleList(nn.Embedding(count, width) for count in parts)
        self.looks = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(2))
        self.thoughts = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, answers))

    def forward(self, pixels: Tensor, questions: Tensor) -> Tensor:
        """Return the logits of the answers (B, Q, answers).

        Args:
            pixels: images (B, 3, 64, 64) in [-1, 1].
            questions: (B, Q, parts), the number of each part's choice.
        """
        seen = self.image(self.patches(pixels).flatten(2).transpose(1, 2) + self.places)
        asked = torch.stack([part(questions[..., k]) for k, part in enumerate(self.parts)]).sum(0)
        for norm, look, think in zip(self.norms, self.looks, self.thoughts, strict=True):
            asked = asked + look(norm(asked), seen, seen, need_weights=False)[0]
            asked = asked + think(asked)
        out: Tensor = self.head(asked)
        return out
