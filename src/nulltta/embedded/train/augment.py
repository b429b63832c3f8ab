"""Augmentations for the scorers and the judge: blur, noise, shades, and the autoencoder's own errors.

Generated images are soft and a little wrong; a network that has only seen clean renders reads them badly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ..autoencoder import PatchAutoencoder

Augmentation = Callable[[Tensor, Generator], Tensor]


def uniform(images: Tensor, generator: Generator, low: float, high: float) -> Tensor:
    """Draw (B, 1, 1, 1) uniform numbers in [low, high), on the images' device."""
    return (low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=generator)).to(images)


def sometimes(images: Tensor, changed: Tensor, share: float, generator: Generator) -> Tensor:
    """Take `changed` for about `share` of the images, and leave the others."""
    return torch.where(uniform(images, generator, 0, 1) < share, changed, images)


def blur(images: Tensor, generator: Generator) -> Tensor:
    """Mix each image with its 3×3 mean by a random amount."""
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return torch.lerp(images, functional.avg_pool2d(padded, 3, stride=1), uniform(images, generator, 0, 1))


def noise(images: Tensor, generator: Generator, most: float = 0.06) -> Tensor:
    """Add Gaussian noise to each image, with a random standard deviation of up to `most`."""
    strength = uniform(images, generator, 0, most)
    return images + strength * torch.randn(images.shape, generator=generator).to(images)


def shade(images: Tensor, generator: Generator, most: float = 0.04) -> Tensor:
    """Change brightness and contrast by up to `most`."""
    contrast, brightness = uniform(images, generator, 1 - most, 1 + most), uniform(images, generator, -most, most)
    return (images - 0.5) * contrast + 0.5 + brightness


def shift(images: Tensor, generator: Generator, most: int = 3) -> Tensor:
    """Roll the whole batch by up to `most` pixels; backgrounds are flat, so nothing shows at the border."""
    x, y = (int(v) for v in torch.randint(-most, most + 1, (2,), generator=generator))
    return images.roll((y, x), (2, 3))


def patch_out(images: Tensor, generator: Generator, side: int = 10) -> Tensor:
    """Cover a square of `side` pixels with mid-grey, at the same place in the whole batch."""
    x, y = (int(v) for v in torch.randint(0, images.shape[-1] - side, (2,), generator=generator))
    covered = images.clone()
    covered[:, :, y : y + side, x : x + side] = 0.5
    return covered


class Redrawn:
    """Encodes and decodes a share of the images, with noise on the latents.

    Args:
        autoencoder: the trained autoencoder, which is frozen.
        most: the greatest standard deviation of the noise, where the latents' is 1.
    """

    def __init__(self, autoencoder: PatchAutoencoder, most: float = 0.6) -> None:
        self.autoencoder, self.most = autoencoder.eval().requires_grad_(False), most

    @torch.no_grad()
    def __call__(self, images: Tensor, share: float, generator: Generator) -> Tensor:
        """Redraw about `share` of the images (B, 3, 64, 64) in [0, 1]."""
        chosen = (torch.rand(len(images), generator=generator) < share).nonzero()[:, 0].to(images.device)
        if not len(chosen):
            return images
        return images.index_copy(0, chosen, self.redraw(images[chosen], generator).to(images))

    def redraw(self, images: Tensor, generator: Generator) -> Tensor:
        """Redraw all images (B, 3, 64, 64) in [0, 1]."""
        z = self.autoencoder.latents(images * 2 - 1).float()
        strength = uniform(images, generator, 0, self.most)
        z = z + strength * torch.randn(z.shape, generator=generator).to(z)
        pixels: Tensor = self.autoencoder.pixels(z)
        return pixels.float() / 2 + 0.5


def usual(redrawn: Redrawn) -> Augmentation:
    """Return the augmentation for `clip` and the judge: redrawing, blur, noise and shade."""

    def augment(images: Tensor, generator: Generator) -> Tensor:
        images = redrawn(images, 0.4, generator)
        images = sometimes(images, blur(images, generator), 0.3, generator)
        images = sometimes(images, noise(images, generator), 0.5, generator)
        return sometimes(images, shade(images, generator), 0.5, generator).clamp(0, 1)

    return augment


def other(redrawn: Redrawn) -> Augmentation:
    """Return the augmentation for `clip-b`: shifts and covered squares instead of blur, the rest in other amounts."""

    def augment(images: Tensor, generator: Generator) -> Tensor:
        images = redrawn(images, 0.3, generator)
        images = shift(images, generator)
        images = sometimes(images, patch_out(images, generator), 0.2, generator)
        images = sometimes(images, noise(images, generator, 0.1), 0.3, generator)
        return sometimes(images, shade(images, generator, 0.06), 0.5, generator).clamp(0, 1)

    return augment
