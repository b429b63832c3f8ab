"""An autoencoder of 8×8 patches: what one level of convolutions can do on an 8×8 grid.

Convolving at full resolution is what makes an image autoencoder slow. Here pixels are folded into channels
first; a linear path, initialised by principal components, carries most of the image, and residual convolutions
on the small grid add what a patch cannot know alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Generator, Tensor, nn
from torch.nn import functional


@dataclass
class DecoderOutput(BaseOutput):  # type: ignore[misc]
    """`sample`: images (B, 3, H, W) in [-1, 1], not clamped."""

    sample: Tensor


class LatentDistribution:
    """A point mass, in the shape that diffusers' callers expect of an encoder."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def sample(self, generator: Generator | None = None) -> Tensor:  # noqa: ARG002  # diffusers' signature
        return self.mean

    def mode(self) -> Tensor:
        return self.mean


@dataclass
class EncoderOutput(BaseOutput):  # type: ignore[misc]
    """`latent_dist`: the latents (B, C, H/8, W/8)."""

    latent_dist: LatentDistribution


class Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))), the identity at initialisation. No normalisation: flat colour must survive."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.second(functional.silu(self.first(functional.silu(x))))
        return x + inner


def _tower(inputs: int, width: int, outputs: int, blocks: int, last: int) -> nn.Sequential:
    """Residual convolutions whose output is zero at initialisation, so that the linear path starts alone."""
    out = nn.Conv2d(width, outputs, last, padding=last // 2)
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)  # type: ignore[arg-type]
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), *(Residual(width) for _ in range(blocks)), nn.SiLU(), out
    )


class PatchAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Images (B, 3, H, W) in [-1, 1] <-> latents (B, latent_channels, H/8, W/8) of mean 0 and deviation 1.

    `width` and `blocks` are the decoder's.

    `block_out_channels` has length 4 because stock pipelines read the scale factor 2**(length − 1) = 8 off it.
    What __init__ does not use is for those pipelines too: they read it in the configuration.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        latent_channels: int = 16,
        width: int = 160,
        blocks: int = 3,
        encoder_width: int = 160,
        encoder_blocks: int = 3,
        scaling_factor: float = 1.0,  # noqa: ARG002
        shift_factor: float = 0.0,  # noqa: ARG002
        block_out_channels: tuple[int, int, int, int] = (160, 160, 160, 160),
        sample_size: int = 64,  # noqa: ARG002
        in_channels: int = 3,
        out_channels: int = 3,  # noqa: ARG002
        force_upcast: bool = False,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.patch = 2 ** (len(block_out_channels) - 1)
        pixels = in_channels * self.patch**2
        self.linear_encoder = nn.Conv2d(pixels, latent_channels, 1)
        self.linear_decoder = nn.Conv2d(latent_channels, pixels, 1)
        self.encoder = _tower(pixels, encoder_width, latent_channels, encoder_blocks, last=1)
        self.decoder = _tower(latent_channels, width, pixels, blocks, last=3)

    def latents(self, images: Tensor) -> Tensor:
        """The latents themselves (B, C, H/8, W/8)."""
        folded = functional.pixel_unshuffle(images, self.patch)
        found: Tensor = self.linear_encoder(folded) + self.encoder(folded)
        return found

    def pixels(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in about [-1, 1], with gradient."""
        return functional.pixel_shuffle(self.linear_decoder(latents) + self.decoder(latents), self.patch)

    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[LatentDistribution]:
        """diffusers' encoder."""
        distribution = LatentDistribution(self.latents(x))
        return EncoderOutput(distribution) if return_dict else (distribution,)

    def decode(
        self,
        z: Tensor,
        return_dict: bool = True,
        generator: Generator | None = None,  # noqa: ARG002  # diffusers' signature; decoding draws nothing
    ) -> DecoderOutput | tuple[Tensor]:
        """diffusers' decoder."""
        image = self.pixels(z)
        return DecoderOutput(image) if return_dict else (image,)

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction."""
        return self.pixels(self.latents(images))

    @torch.no_grad()
    def fit_linear(self, images: Tensor) -> None:
        """Set the linear path to the principal components of the patches of `images` (N, 3, H, W), whitened."""
        patches = functional.pixel_unshuffle(images, self.patch).permute(0, 2, 3, 1).flatten(0, 2)
        mean = patches.mean(0)
        _, values, axes = torch.linalg.svd(patches - mean, full_matrices=False)
        k = self.linear_encoder.out_channels
        deviation, axes = values[:k] / len(patches) ** 0.5, axes[:k]
        _set(self.linear_encoder, axes / deviation[:, None], -(axes @ mean) / deviation)
        _set(self.linear_decoder, axes.T * deviation, mean)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Fold each latent channel's mean and deviation over `images` into the weights: then they are 0 and 1.

        The reconstruction is unchanged, but for the decoder's border: zero padding stands for another value.
        So the autoencoder is trained on for a while after this, or its latents are near enough white already.
        """
        z = self.latents(images)
        mean, deviation = z.mean((0, 2, 3)), z.std((0, 2, 3))
        for encode in (self.linear_encoder, cast(nn.Conv2d, self.encoder[-1])):
            _set(encode, encode.weight.flatten(1) / deviation[:, None], _bias(encode) / deviation)
        _bias(self.linear_encoder).sub_(mean / deviation)
        for decode in (self.linear_decoder, cast(nn.Conv2d, self.decoder[0])):
            _bias(decode).add_(torch.einsum("oihw,i->o", decode.weight, mean))
            decode.weight.mul_(deviation[None, :, None, None])


def _set(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight.view_as(layer.weight))
    _bias(layer).copy_(bias)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


# A saved pipeline names the module of its parts; diffusers looks this one up where it is exported from.
PatchAutoencoder.__module__ = "nulltta.embedded"
