"""Pictures of any shape as the patches that a tower of variable resolution reads, in differentiable torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.rewards.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class QwenPatches:
    """Images (B, 3, H, W) in [0, 1] -> patches (B·h·w, 3·frames·patch²) and their grid (B, 3), rows of (1, h, w).

    What transformers' `Qwen2VLImageProcessor` makes: nearly the picture's own size, sides that are multiples of
    patch·merge; the patches that the tower merges stand next to each other; a still is `frames` equal frames. Pixels
    differ from its PIL version's as little as `Preprocess` says, and not at all where nothing is resized.

    Attributes:
        fewest, most: pixels of the resized picture.
    """

    preprocess: Preprocess
    patch: int
    merge: int
    frames: int
    fewest: int
    most: int

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        size = smart_resize(height, width, self.patch * self.merge, self.fewest, self.most)
        pixels = replace(self.preprocess, size=size)(images)
        p, m = self.patch, self.merge
        h, w = size[0] // p, size[1] // p
        patches = pixels.reshape(-1, 3, h // m, m, p, w // m, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)  # ..., 3, p, p
        patches = patches.unsqueeze(6).expand(*patches.shape[:6], self.frames, p, p)
        grid = torch.tensor([[1, h, w]], device=images.device).repeat(len(images), 1)
        return patches.reshape(len(images) * h * w, -1), grid

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> QwenPatches:
        """From a `preprocessor_config.json`, in its old spelling (min_pixels, max_pixels) and its new (size)."""
        size = config.get("size") or {}
        return cls(
            _any_size(config), config.get("patch_size", 14), config.get("merge_size", 2),
            config.get("temporal_patch_size", 2),
            fewest=config.get("min_pixels") or size.get("shortest_edge", 56 * 56),
            most=config.get("max_pixels") or size.get("longest_edge", 28 * 28 * 1280),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NaflexPatches:
    """Images (B, 3, H, W) in [0, 1] -> patches (B, h·w, 3·patch²) and their grid (B, 2), rows of (h, w).

    What transformers' `Siglip2ImageProcessor` makes, h·w ≤ most, without its padding to `most` patches: pictures of a
    batch have the same shape, so that none is needed, nor a mask.
    """

    preprocess: Preprocess
    patch: int
    most: int

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        size = naflex_resize(height, width, self.patch, self.most)
        pixels = replace(self.preprocess, size=size)(images)
        h, w = (side // self.patch for side in size)
        patches = pixels.reshape(-1, 3, h, self.patch, w, self.patch).permute(0, 2, 4, 3, 5, 1)  # B, h, w, p, p, 3
        grid = torch.tensor([[h, w]], device=images.device).repeat(len(images), 1)
        return patches.reshape(len(images), h * w, -1), grid

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NaflexPatches:
        """From a `preprocessor_config.json`."""
        return cls(_any_size(config), config.get("patch_size", 16), config.get("max_num_patches", 256))


def smart_resize(height: int, width: int, factor: int, fewest: int, most: int) -> tuple[int, int]:
    """Qwen2-VL's (height, width): multiples of `factor` near the picture's own, `fewest` to `most` pixels together.

    Raises:
        NullTTAError: one side is more than 200 times the other.
    """
    if max(height, width) > 200 * min(height, width):
        raise InvalidValue(f"images of {height}×{width} pixels: Qwen-VL takes sides of at most 200 to 1")
    h, w = (round(side / factor) * factor for side in (height, width))
    if h * w > most:
        excess = math.sqrt(height * width / most)
        h, w = (max(factor, math.floor(side / excess / factor) * factor) for side in (height, width))
    elif h * w < fewest:
        lack = math.sqrt(fewest / (height * width))
        h, w = (math.ceil(side * lack / factor) * factor for side in (height, width))
    return h, w


def naflex_resize(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """NaFlex's (height, width): the greatest scale of the picture, up to multiples of `patch`, of `most` patches.

    By bisection to 1e-5, as in SigLIP 2's own code: a closed form would differ where a patch hangs by a thread.
    """

    def patches(scale: float) -> tuple[int, int]:
        return max(1, math.ceil(height * scale / patch)), max(1, math.ceil(width * scale / patch))

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(patches(middle)) <= most else (low, middle)
    h, w = patches(low)
    return h * patch, w * patch


def _any_size(config: Mapping[str, Any]) -> Preprocess:
    """A configured preprocessing but for its size, which is each picture's own."""
    return Preprocess.from_config({**config, "size": 0, "do_center_crop": False})
