"""An autoencoder of 8×8 patches, fast because it convolves on the latents' grid only.

Convolutions at full resolution make an image autoencoder slow. Here pixels are folded into channels first. A linear
path, initialised by principal components, carries most of each patch; residual convolutions on the small grid add what
depends on its neighbours.
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
    """What `PatchAutoencoder.decode` returns.

    Attributes:
        sample: images (B, 3, H, W) in about [-1, 1], not clamped.
    """

    sample: Tensor


class LatentDistribution:
    """A distribution with all its mass at one point, with the interface that diffusers expects of an encoder.

    Args:
        mean: the latents (B, C, h, w).
    """

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def sample(self, generator: Generator | None = None) -> Tensor:  # noqa: ARG002  # diffusers' signature
        """Return the latents (B, C, h, w); nothing is drawn."""
        return self.mean

    def mode(self) -> Tensor:
        """Return the latents (B, C, h, w)."""
        return self.mean


@dataclass
class EncoderOutput(BaseOutput):  # type: ignore[misc]
    """What `PatchAutoencoder.encode` returns.

    Attributes:
        latent_dist: the latents (B, C, H/8, W/8), as a distribution.
    """

    latent_dist: LatentDistribution


class Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))), the identity at initialisation.

    There is no normalisation, because it would remove a flat colour.
    """

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
    """Return residual convolutions whose output is zero at initialisation, so that the linear path starts alone."""
    out = nn.Conv2d(width, outputs, last, padding=last // 2)
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)  # type: ignore[arg-type]
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), *(Residual(width) for _ in range(blocks)), nn.SiLU(), out
    )


class PatchAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An autoencoder between images (B, 3, H, W) in [-1, 1] and latents (B, C, H/8, W/8), whitened after training.

    Args:
        latent_channels: C.
        width: channels of the decoder's convolutions.
        blocks: residual blocks of the decoder.
        encoder_width: channels of the encoder's convolutions.
        encoder_blocks: residual blocks of the encoder.
        scaling_factor: stock pipelines read it in the configuration, as they do the arguments below.
        shift_factor: as `scaling_factor`.
        block_out_channels: has length 4, from which stock pipelines derive the patch size 2**(length − 1) = 8.
        sample_size: the image size in pixels that the autoencoder was trained at.
        in_channels: channels of an image.
        out_channels: as `in_channels`.
        force_upcast: whether decoding needs float32; it does not.
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
        block_out_channels: tuple[int, ...] = (160, 160, 160, 160),
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
        """Encode images (B, 3, H, W) in [-1, 1] into latents (B, C, H/8, W/8)."""
        folded = functional.pixel_unshuffle(images, self.patch)
        found: Tensor = self.linear_encoder(folded) + self.encoder(folded)
        return found

    def pixels(self, latents: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) into images (B, 3, 8h, 8w) in about [-1, 1], not clamped; differentiable."""
        return functional.pixel_shuffle(self.linear_decoder(latents) + self.decoder(latents), self.patch)

    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[LatentDistribution]:
        """Encode as diffusers' autoencoders do; see `latents`."""
        distribution = LatentDistribution(self.latents(x))
        return EncoderOutput(distribution) if return_dict else (distribution,)

    def decode(
        self,
        z: Tensor,
        return_dict: bool = True,
        generator: Generator | None = None,  # noqa: ARG002  # diffusers' signature; decoding draws nothing
    ) -> DecoderOutput | tuple[Tensor]:
        """Decode as diffusers' autoencoders do; see `pixels`."""
        image = self.pixels(z)
        return DecoderOutput(image) if return_dict else (image,)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images (B, 3, H, W) from their latents."""
        return self.pixels(self.latents(images))

    @torch.no_grad()
    def fit_linear(self, images: Tensor) -> None:
        """Set the linear path to the whitened principal components of patches of images (N, 3, H, W) in [-1, 1]."""
        patches = functional.pixel_unshuffle(images, self.patch).permute(0, 2, 3, 1).flatten(0, 2)
        mean = patches.mean(0)
        _, values, axes = torch.linalg.svd(patches - mean, full_matrices=False)
        k = self.linear_encoder.out_channels
        deviation, axes = values[:k] / len(patches) ** 0.5, axes[:k]
        _set(self.linear_encoder, axes / deviation[:, None], -(axes @ mean) / deviation)
        _set(self.linear_decoder, axes.T * deviation, mean)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Rescale the weights so that over `images` each latent channel has mean 0 and standard deviation 1.

        Reconstructions are unchanged except near the border, where the decoder's zero padding now stands for another
        value; it matters little if the latents were nearly white before.
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
    """Overwrite the parameters of a layer."""
    layer.weight.copy_(weight.view_as(layer.weight))
    _bias(layer).copy_(bias)


def _bias(layer: nn.Conv2d) -> Tensor:
    """Return the bias of a layer that has one."""
    assert layer.bias is not None
    return layer.bias


# A saved pipeline records the module of each of its parts: this one must be recorded as the public module.
PatchAutoencoder.__module__ = "nulltta.embedded"
