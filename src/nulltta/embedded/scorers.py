"""The embedded image-text scorers: `clip`, the usual target, and `clip-b`, which the benchmark only measures with.

They differ in architecture, seed and augmentation. Both return the cosine similarity of image and text features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue, LoadError
from nulltta.quiet import quiet_libraries

from . import WEIGHTS
from .networks import ConvClip, fit_pixels, restore
from .tokenizer import token_ids

NAMES = ("clip", "clip-b")


def features(found: Any) -> Tensor:
    """Return unit-length features (B, F) in float32; some releases of transformers wrap them in an output object."""
    tensor: Tensor = getattr(found, "pooler_output", found)
    return functional.normalize(tensor.float(), dim=-1)


class Scorer(Reward):
    """The cosine similarity of image and text features, differentiable in the images.

    Args:
        name: the reward's name.
        model: a network with `get_image_features` and `get_text_features`; its parameters are frozen.
        tokenizer: what `token_ids` takes.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name = name
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self._texts: dict[str, Tensor] = {}

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score images (B, 3, H, W) in [0, 1] for their B prompts: (B,) in [-1, 1]."""
        seen = self.image_features(images)
        return (seen * self.text_features(prompts).to(seen)).sum(-1)

    def image_features(self, images: Tensor) -> Tensor:
        """Return unit-length features (B, F) of images (B, 3, H, W) in [0, 1]."""
        place = next(self.model.parameters())
        return features(self.model.get_image_features(pixel_values=fit_pixels(images).to(place)))

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Return unit-length features (B, F) of prompts; each prompt is encoded once and remembered."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            ids = token_ids(self.tokenizer, new).to(next(self.model.parameters()).device)
            self._texts |= zip(new, features(self.model.get_text_features(input_ids=ids)), strict=True)
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def forget_texts(self) -> None:
        """Drop the remembered features of prompts, so that what encoding them costs can be measured again."""
        self._texts.clear()


@quiet_libraries()
def load_scorer(
    name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, folder: Path = WEIGHTS
) -> Scorer:
    """Load a scorer of the embedded model.

    Args:
        name: "clip" or "clip-b".
        device: where to put it.
        dtype: the parameters' data type.
        folder: the folder of the weights, by default the shipped ones.

    Raises:
        InvalidValue: if there is no such scorer.
        LoadError: if its weights are missing.
    """
    place = weights_of(name, NAMES, folder, "make world")
    return contrastive(name, place, None if name == "clip" else ConvClip, device, dtype)


def weights_of(name: str, known: Sequence[str], folder: Path, train: str) -> Path:
    """Return the folder of a scorer's weights.

    Args:
        name: the scorer.
        known: the scorers that there are.
        folder: the folder of all weights.
        train: the command that trains them.

    Raises:
        InvalidValue: if there is no such scorer.
        LoadError: if its weights are missing.
    """
    if name not in known:
        raise InvalidValue(f"must be one of {', '.join(known)}, not {name!r}", field="name")
    if not (folder / name / "model.safetensors").exists():
        raise LoadError(f"the weights of {name} are missing from {folder}: `{train}` trains them")
    return folder / name


def contrastive(
    name: str, place: Path, network: type[nn.Module] | None, device: torch.device | str, dtype: torch.dtype
) -> Scorer:
    """Load a contrastive scorer and its tokenizer from a folder: a network of our own, or a CLIPModel if None."""
    from transformers import CLIPModel, CLIPTokenizer

    model: Any = CLIPModel.from_pretrained(place, dtype=dtype) if network is None else restore(network, place)
    return Scorer(name, model.to(device=device, dtype=dtype), CLIPTokenizer.from_pretrained(place))
