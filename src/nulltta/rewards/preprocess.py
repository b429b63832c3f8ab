"""The preprocessing of image encoders (resize, centre crop, normalise) in differentiable torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from nulltta.errors import InvalidValue, LoadError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Preprocess images (B, 3, H, W) in [0, 1] to (B, 3, size[0], size[1]), normalised.

    The official processors resize with PIL, which filters with antialiasing and rounds to 8 bits after each of its two
    passes. Nothing is rounded here, so that the gradient is that of the filter. On 8-bit images of natural statistics
    (96×96 to 512×512, scaled up and down, square and not) pixels differ from PIL's by 0.0009 on average and by 0.005
    at most, of a range of 1 (`tests/rewards/test_preprocess.py`). Pillow 13 resizes the height first if it shrinks by
    more than twice as many pixels as the width; then about 1% of the pixels, at hard edges where bicubic overshoot is
    clipped, differ by up to 0.06. The order here is that of all earlier versions.

    Attributes:
        size: (height, width) of the result.
        crop: whether to resize the shorter side and crop the centre, instead of resizing both sides.
        mode: the filter, antialiased like PIL's.
        mean: of each channel.
        std: of each channel.
        clamp: whether bicubic overshoot is clipped to [0, 1], as in 8-bit images; scorers that resize float tensors do
            not clip it.
        half: how half of an odd margin is rounded: "floor" as in transformers, "round" to even as in torchvision.
    """

    size: tuple[int, int] = (224, 224)
    crop: bool = True
    mode: Literal["bilinear", "bicubic"] = "bicubic"
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    clamp: bool = True
    half: Literal["floor", "round"] = "floor"

    def __call__(self, images: Tensor) -> Tensor:
        """Preprocess images on their device, in float32 at least, with gradient.

        Raises:
            InvalidValue: if the shape is not (B, 3, H, W).
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise InvalidValue(f"images have shape {tuple(images.shape)}: a reward takes (B, 3, H, W)")
        images = self._resized(images if images.dtype == torch.float64 else images.float())
        if self.crop:
            top, left = (self._margin(a, b) for a, b in zip(images.shape[2:], self.size, strict=True))
            images = images[:, :, top : top + self.size[0], left : left + self.size[1]]
        mean, std = (torch.tensor(v, dtype=images.dtype, device=images.device) for v in (self.mean, self.std))
        return (images - mean[:, None, None]) / std[:, None, None]

    def _resized(self, images: Tensor) -> Tensor:
        """Resize images, one axis after the other."""
        height, width = images.shape[2:]
        target = self.size
        if self.crop:  # the shorter side gets the larger target, the longer side follows in proportion, rounded down
            side = max(self.size)
            target = (side, side * width // height) if height <= width else (side * height // width, side)
        if (height, width) == target:
            return images
        for size in ((height, target[1]), target):  # PIL's order: the width, clipping, then the height
            images = functional.interpolate(images, size=size, mode=self.mode, align_corners=False, antialias=True)
            images = images.clamp(0, 1) if self.clamp else images
        return images

    def _margin(self, given: int, wanted: int) -> int:
        """Return how many pixels are cropped before the centre."""
        return (given - wanted) // 2 if self.half == "floor" else round((given - wanted) / 2)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocess:
        """Read a transformers `preprocessor_config.json`, in the old spelling ("size": 224) or the new one.

        Raises:
            LoadError: if it asks for a step that is not supported here.
        """
        size = _sides(config.get("size", 224), shortest=True)
        crop = bool(config.get("do_center_crop", "crop_size" in config))
        if config.get("resample", 3) not in _FILTERS or not config.get("do_resize", True):
            raise LoadError(f"preprocessor_config.json: resample {config.get('resample')} is not supported")
        if crop and size != _sides(config.get("crop_size", size), shortest=False):
            raise LoadError(f"preprocessor_config.json: a crop other than the size {size} is not supported")
        return cls(
            size=size, crop=crop, mode=_FILTERS[config.get("resample", 3)],
            mean=tuple(config.get("image_mean", CLIP_MEAN)), std=tuple(config.get("image_std", CLIP_STD)),
        )  # fmt: skip


def _sides(size: Any, *, shortest: bool) -> tuple[int, int]:
    """Read a size as (height, width): 224, [224, 224], {"shortest_edge": 224} or {"height": 224, "width": 224}."""
    if isinstance(size, Mapping):
        if shortest and "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
        return int(size["height"]), int(size["width"])
    if isinstance(size, int):
        return size, size
    return int(size[0]), int(size[1])
