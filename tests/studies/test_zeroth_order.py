"""The differentiable approximation of JPEG size is close to the real size, and its gradient lowers it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from nulltta import rewards


@pytest.fixture
def soft_jpeg(study: Callable[[str], ModuleType]) -> Any:
    """Return the class of the approximation."""
    return study("zeroth_order").SoftJpegSize


def _pictures(count: int, seed: int) -> Tensor:
    """Draw coloured noise of different smoothness, (count, 3, 64, 64)."""
    noise = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    frequency = torch.fft.fftfreq(64).square()[:, None] + torch.fft.fftfreq(64).square()
    fall = torch.linspace(0.5, 2.5, count).view(-1, 1, 1, 1)
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) / (frequency + 64**-2) ** (fall / 2)).real
    return (0.5 + 0.2 * smooth / smooth.std((1, 2, 3), keepdim=True)).clamp(0, 1)


def test_it_predicts_the_size_of_pictures_that_it_was_not_fitted_to(soft_jpeg: Any) -> None:
    soft, pictures = soft_jpeg(_pictures(12, seed=0)), _pictures(12, seed=1)
    sizes = rewards.load("jpeg")(pictures)
    assert (soft(pictures) - sizes).abs().mean() < 0.1 * sizes.std()


def test_its_gradient_makes_a_picture_smaller(soft_jpeg: Any) -> None:
    pictures, size = _pictures(6, seed=2), rewards.load("jpeg")
    soft = soft_jpeg(pictures)
    leaf = pictures.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(soft(leaf).sum(), leaf)
    uphill = gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    assert bool((size(pictures + 0.005 * uphill) > size(pictures)).all())


def test_its_cosine_transform_keeps_lengths(soft_jpeg: Any) -> None:
    dct = soft_jpeg(_pictures(4, seed=3)).dct
    torch.testing.assert_close(dct @ dct.T, torch.eye(8), rtol=0, atol=1e-6)
