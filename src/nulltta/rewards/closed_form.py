"""Rewards that are a formula of the pixels: (images (B, 3, H, W) in [0, 1], prompts) -> scores (B,)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nulltta.errors import InvalidValue
from nulltta.rewards.expression import RGB


def brightness(images: Tensor, prompts: Sequence[str] = ()) -> Tensor:
    """Return the mean of all pixels and channels, in [0, 1]."""
    return images.mean(dim=(1, 2, 3))


def colourfulness(images: Tensor, prompts: Sequence[str] = ()) -> Tensor:
    """Return Hasler and Süsstrunk's M3 (Measuring colourfulness in natural images, 2003) of pixels in [0, 1].

    √(σ²_rg + σ²_yb) + 0.3·√(μ²_rg + μ²_yb) with rg = R − G and yb = (R + G)/2 − B. The published scale, for pixels
    in [0, 255], is 255 times this one. The gradient stays finite on grey images.
    """
    r, g, b = images.flatten(2).unbind(1)  # (B, H·W)
    rg, yb = r - g, (r + g) / 2 - b
    tiny = torch.finfo(images.dtype).tiny ** 0.5
    spread = (rg.var(1, correction=0) + yb.var(1, correction=0)).clamp(min=tiny).sqrt()
    mean = (rg.mean(1).square() + yb.mean(1).square()).clamp(min=tiny).sqrt()
    return spread + 0.3 * mean


def sharpness(images: Tensor, prompts: Sequence[str] = ()) -> Tensor:
    """Return the variance of the luminance's Laplacian (Pech-Pacheco et al., 2000), for pixels in [0, 1].

    The luminance is that of ITU-R BT.601. The Laplacian uses four neighbours and is taken inside the border, so
    images must be 3×3 or larger. A flat image scores 0.
    """
    weights = torch.tensor([0.299, 0.587, 0.114]).to(images)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).to(images)
    luminance = torch.einsum("bchw,c->bhw", images, weights)[:, None]
    return functional.conv2d(luminance, kernel[None, None]).var(dim=(1, 2, 3), correction=0)


def target_colour(text: str | None) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """Make the reward "−mean squared distance of the pixels to a colour", in [−1, 0].

    Args:
        text: the colour as "#RRGGBB".

    Raises:
        InvalidValue: if the text is not such a colour.
    """
    if text is None or not RGB.fullmatch(text):
        raise InvalidValue(f"target-colour takes a colour, as in target-colour:#ff8800, not '{text or ''}'")
    colour = torch.tensor(list(bytes.fromhex(text[1:]))) / 255

    def nearness(images: Tensor, prompts: Sequence[str] = ()) -> Tensor:
        return -(images - colour.to(images)[:, None, None]).square().mean(dim=(1, 2, 3))

    return nearness
