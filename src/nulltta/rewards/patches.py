"""Images cut into the patches that encoders of variable resolution read, in differentiable torch."""

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
    """Cut images (B, 3, H, W) in [0, 1] into patches (B·h·w, 3·frames·patch²), with their grid (B, 3) of (1, h, w).

    This is what transformers' `Qwen2VLImageProcessor` does. Images keep nearly their own size, with sides that are
    multiples of patch·merge; patches that the encoder merges are adjacent; a still image is repeated as `frames`
    frames. Pixels differ from the processor's as little as `Preprocess` says, and not at all if nothing is resized.

    Attributes:
        preprocess: the filter and the normalisation; its size is replaced by each image's own.
        patch: the side of a patch, in pixels.
        merge: the side of the square of patches that become one token.
        frames: the number of frames in a patch.
        fewest: the smallest number of pixels of the resized image.
        most: the largest number of pixels of the resized image.
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
        """Read a `preprocessor_config.json`, in the old spelling (min_pixels, max_pixels) or the new one (size)."""
        size = config.get("size") or {}
        return cls(
            _any_size(config), config.get("patch_size", 14), config.get("merge_size", 2),
            config.get("temporal_patch_size", 2),
            fewest=config.get("min_pixels") or size.get("shortest_edge", 56 * 56),
            most=config.get("max_pixels") or size.get("longest_edge", 28 * 28 * 1280),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NaflexPatches:
    """Cut images (B, 3, H, W) in [0, 1] into patches (B, h·w, 3·patch²), h·w ≤ most, with their grid (B, 2) of (h, w).

    This is what transformers' `Siglip2ImageProcessor` does, without its padding to `most` patches and its mask, which
    a batch of images of the same shape does not need.

    Attributes:
        preprocess: the filter and the normalisation; its size is replaced by each image's own.
        patch: the side of a patch, in pixels.
        most: the largest number of patches.
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
        """Read a `preprocessor_config.json`."""
        return cls(_any_size(config), config.get("patch_size", 16), config.get("max_num_patches", 256))


def smart_resize(height: int, width: int, factor: int, fewest: int, most: int) -> tuple[int, int]:
    """Return Qwen2-VL's (height, width): multiples of `factor` near the image's own, with `fewest` to `most` pixels.

    Raises:
        InvalidValue: if one side is more than 200 times the other.
    """
    if max(height, width) > 200 * min(height, width):
        raise InvalidValue(
            f"images of {height}×{width} pixels: Qwen-VL takes images whose sides differ by a factor of 200 at most"
        )
    h, w = (round(side / factor) * factor for side in (height, width))
    if h * w > most:
        excess = math.sqrt(height * width / most)
        h, w = (max(factor, math.floor(side / excess / factor) * factor) for side in (height, width))
    elif h * w < fewest:
        lack = math.sqrt(fewest / (height * width))
        h, w = (math.ceil(side * lack / factor) * factor for side in (height, width))
    return h, w


def naflex_resize(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Return NaFlex's (height, width): the largest scaled size, rounded up to multiples of `patch`, of `most` patches.

    The scale is found by bisection to 1e-5, as in SigLIP 2's own code. A closed form would give another size for
    images at the edge of one more patch.
    """

    def patches(scale: float) -> tuple[int, int]:
        """Return (height, width) in patches."""
        return max(1, math.ceil(height * scale / patch)), max(1, math.ceil(width * scale / patch))

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(patches(middle)) <= most else (low, middle)
    h, w = patches(low)
    return h * patch, w * patch


def _any_size(config: Mapping[str, Any]) -> Preprocess:
    """Read a preprocessing whose size will be each image's own."""
    return Preprocess.from_config({**config, "size": 0, "do_center_crop": False})
