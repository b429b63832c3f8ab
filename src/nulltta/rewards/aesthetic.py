"""LAION's aesthetic predictor, v2 ("sac+logos+ava1-l14-linearMSE"): an MLP on CLIP ViT-L/14's image features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nulltta.errors import InvalidValue
from nulltta.rewards import clip, sources, weights

HUB = "trl-lib/ddpo-aesthetic-predictor"  # a mirror: the authors publish the file in their code's repository
FILES = ("aesthetic-model.safetensors", "sac+logos+ava1-l14-linearMSE.pth", "aesthetic-model.pth")


class Aesthetic:
    """About 1 to 10, (B,): the MLP has no activations, so the score is affine in the unit feature. Ignores prompts."""

    differentiable = True

    def __init__(self, tower: clip.Tower, mlp: nn.Module, name: str = "aesthetic") -> None:
        self.name, self.tower, self.mlp = name, tower, mlp

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - of the picture alone
        features = self.tower.image_features(images)
        scores: Tensor = self.mlp(features)[:, 0]
        return scores.to(images.device)


class Head(nn.Module):
    """Linear layers and dropouts (none here: they do nothing in evaluation) under the official names and places.

    LAION's predictor and ImageReward's end in the same one: 768 → 1024 → 128 → 64 → 16 → 1.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        places = sorted(int(name.split(".")[1]) for name in state if name.endswith(".weight"))
        shapes = {place: state[f"layers.{place}.weight"].shape for place in places}
        self.layers = nn.Sequential(
            *(nn.Linear(shapes[i][1], shapes[i][0]) if i in shapes else nn.Identity() for i in range(places[-1] + 1))
        )

    def forward(self, features: Tensor) -> Tensor:
        values: Tensor = self.layers(features)
        return values


def head(state: Mapping[str, Tensor], width: int, *, what: str, device: torch.device, dtype: torch.dtype) -> Head:
    """The MLP of a checkpoint `layers.0.weight, ...` on features of `width`; float32 at least.

    Raises:
        NullTTAError: the keys are others, or their shapes do not make a chain from `width` to 1.
    """
    found = {name: value for name, value in state.items() if name.startswith("layers.") and value.dim() in (1, 2)}
    matrices = [value for name, value in found.items() if name.endswith(".weight") and value.dim() == 2]
    if not matrices:
        raise InvalidValue(f"{what}: the file lacks 'layers.0.weight'")
    precision = dtype if dtype == torch.float64 else torch.float32
    mlp = weights.fill(lambda: Head(found), state, what=what, device=device, dtype=precision)
    linear = [layer for layer in mlp.layers if isinstance(layer, nn.Linear)]
    ends = [width, *(layer.out_features for layer in linear)]
    if [layer.in_features for layer in linear] != ends[:-1] or ends[-1] != 1:
        raise InvalidValue(f"{what}: its layers do not lead from {width} features to 1 score")
    return mlp


def load(
    name: str, source: str | Path | None, device: torch.device, dtype: torch.dtype, sha256: str | None
) -> Aesthetic:
    """`source`: the MLP's file or directory. CLIP comes from the same directory if it holds one (config.json), from
    its folder `clip-vit-large-patch14`, or from the hub."""
    path = sources.find(source or HUB, FILES, reward=name, sha256=sha256)
    places = [path.parent, path.parent / "clip-vit-large-patch14"]
    home = next((str(place) for place in places if source and (place / "config.json").is_file()), clip.OPENAI)
    tower = clip.tower(home, device, dtype, reward=name)
    width = tower.model.config.projection_dim
    mlp = head(weights.read(path), width, what=f"'{path}' is no aesthetic MLP", device=device, dtype=dtype)
    return Aesthetic(tower, mlp, name)
