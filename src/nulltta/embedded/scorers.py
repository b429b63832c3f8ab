"""The embedded image-text scorers: `clip`, the usual target, and `clip-b`, never a target in our own tables.

They differ in architecture, seed and augmentation; both give the cosine of image and text features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue
from nulltta.quiet import quiet_libraries

from . import WEIGHTS
from .networks import ConvClip, fit_pixels
from .tokenizer import token_ids

ScorerName = Literal["clip", "clip-b"]


def features(found: Any) -> Tensor:
    """Unit-length features (B, F) in float32, whatever transformers wraps them in."""
    tensor: Tensor = getattr(found, "pooler_output", found)
    return functional.normalize(tensor.float(), dim=-1)


class Scorer(Reward):
    """`scorer(images, prompts)`: cosine similarity (B,), differentiable in the images; parameters frozen."""

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name = name
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self._texts: dict[str, Tensor] = {}

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], B prompts -> (B,) in [-1, 1]."""
        seen = self.image_features(images)
        return (seen * self.text_features(prompts).to(seen)).sum(-1)

    def image_features(self, images: Tensor) -> Tensor:
        """(B, F), of unit length."""
        place = next(self.model.parameters())
        return features(self.model.get_image_features(pixel_values=fit_pixels(images).to(place)))

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """(B, F), each prompt encoded once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            ids = token_ids(self.tokenizer, new).to(next(self.model.parameters()).device)
            self._texts |= zip(new, features(self.model.get_text_features(input_ids=ids)), strict=True)
        return torch.stack([self._texts[prompt] for prompt in prompts])


@quiet_libraries()
def load_scorer(
    name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, folder: Path = WEIGHTS
) -> Scorer:
    """A shipped scorer.

    Raises:
        NullTTAError: no such scorer, or its weights are not there.
    """
    if name not in ("clip", "clip-b"):
        raise InvalidValue(f"unknown scorer {name!r} of the embedded world; known: clip, clip-b")
    place = folder / name
    if not (place / "model.safetensors").exists():
        raise InvalidValue(f"the embedded world's {name} weights are missing from {folder}; `make world` trains them")
    from transformers import CLIPModel, CLIPTokenizer

    if name == "clip":
        model = CLIPModel.from_pretrained(place, dtype=dtype)
    else:
        model = ConvClip(**json.loads((place / "config.json").read_text()))
        model.load_state_dict(load_file(place / "model.safetensors"))
    return Scorer(name, model.to(device=device, dtype=dtype), CLIPTokenizer.from_pretrained(place))
