"""A differentiable stand-in for the size of a JPEG, to say what a reward loses by having no gradient."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nulltta.rewards.jpeg import QUALITY, JpegSize

_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


class SoftJpegSize:
    """−kB, as a + b·Σ log2(1 + |q|) over the quantised but unrounded coefficients q of an image's 8×8 blocks.

    A coefficient's magnitude takes about that many bits. a and b are fitted to `JpegSize` on the images given.
    """

    name, differentiable = "soft-jpeg", True

    def __init__(self, images: Tensor) -> None:
        blank = io.BytesIO()
        Image.new("RGB", (8, 8)).save(blank, format="JPEG", quality=QUALITY)
        tables = Image.open(blank).quantization  # type: ignore[attr-defined]  # in reading order
        self.luma, self.chroma = (torch.tensor(tables[i], dtype=torch.float32).view(8, 8) for i in (0, 1))
        k = torch.arange(8.0)
        self.dct = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2  # DCT-II, orthonormal
        self.dct[0] /= math.sqrt(2)
        bits, sizes = self.bits(images), JpegSize("jpeg", -1)(images)
        self.slope = torch.cov(torch.stack([bits, sizes]))[0, 1] / bits.var()
        self.offset = sizes.mean() - self.slope * bits.mean()
        self.correlation = torch.corrcoef(torch.stack([bits, sizes]))[0, 1].item()

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - of the pixels alone
        return self.offset + self.slope * self.bits(images)

    def bits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B,)."""
        ycc = torch.einsum("ij,bjhw->bihw", _TO_YCC, images.clamp(0, 1) * 255)
        return self._of(ycc[:, :1] - 128, self.luma) + self._of(avg_pool2d(ycc[:, 1:], 2), self.chroma)

    def _of(self, planes: Tensor, table: Tensor) -> Tensor:
        blocks = planes.unfold(2, 8, 8).unfold(3, 8, 8)
        q = self.dct @ blocks @ self.dct.T / table
        return torch.log2(1 + q.abs()).flatten(1).sum(1)
