"""How much memory does an inner step of a model of real size take? Counted on the meta device, without any weights.

    python studies/memory.py [--model sd15 --model sdxl --model flux]

One inner step is one branch of the denoiser and the decoder, forward and backward to the null text, for one prompt at
the model's own resolution. What is counted is the peak of all tensors made on the way, weights aside: as it is, with
the denoiser's activations recomputed in the backward pass, and with the decoder's too. Attention is taken to keep what
flash attention keeps (queries, keys, values, outputs and one number per row). The reward is left out.

The script prints a Markdown table, in GiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from nulltta.benchmark.costs.meters import peak_bytes
from nulltta.benchmark.costs.stand_ins import denoise, measured_pipeline, no_tokens
from nulltta.models.frozen import Frozen

GIB = 2**30
META = torch.device("meta")


@dataclass(frozen=True)
class Parts:
    """What is on the device in an inner step, and what is not.

    Attributes:
        denoiser: latents and tokens -> the prediction; called with the network to evaluate.
        network: that network.
        vae: the decoder.
        texts: the text encoders.
        latents, tokens: of one row.
        to_decoder: the prediction -> what the decoder takes.
    """

    denoiser: Callable[[Any, Tensor, Tensor], Tensor]
    network: nn.Module
    vae: nn.Module
    texts: list[nn.Module]
    latents: Tensor
    tokens: Tensor
    to_decoder: Callable[[Tensor], Tensor]


def main(
    model: Annotated[list[str] | None, typer.Option(help="sd15, sdxl or flux; may be repeated.")] = None,
    dtype: str = "bfloat16",
) -> None:
    """Count an inner step's memory."""
    print("| model | denoiser and decoder | text encoders | inner step | denoiser recomputed | decoder too |")
    print("|---" * 6 + "|")
    for name in model or ["sd15", "sdxl", "flux"]:
        parts = (_flux if name == "flux" else _unet)(name, getattr(torch, dtype))
        sizes = [_bytes(parts.network) + _bytes(parts.vae), sum(map(_bytes, parts.texts))]
        sizes += [inner_step(parts, stage) for stage in range(3)]
        print(f"| {name} | " + " | ".join(f"{size / GIB:.1f}" for size in sizes) + " |")


def inner_step(parts: Parts, stage: int) -> int:
    """Count the bytes of an inner step in which so many of the two networks recompute their activations."""
    denoiser, decoder = Frozen(parts.network), Frozen(parts.vae)
    denoiser.recompute, decoder.recompute = stage > 0, stage > 1

    def step() -> None:
        tokens = parts.tokens.detach().requires_grad_()
        prediction = parts.denoiser(denoiser, parts.latents, tokens)
        images = decoder.decode(parts.to_decoder(prediction), return_dict=False)[0]
        torch.autograd.grad(images.float().sum(), tokens)

    with _flash_attention():
        return peak_bytes(step, META)


def _unet(name: str, dtype: torch.dtype) -> Parts:
    pipeline = measured_pipeline(name, "meta", dtype)
    size, unet = pipeline.unet.config.sample_size, pipeline.unet
    texts = [part for key, part in pipeline.components.items() if key.startswith("text_encoder") and part is not None]
    return Parts(
        lambda network, x, tokens: denoise(_Unet(network), x, tokens), unet, pipeline.vae, texts,
        torch.zeros(1, unet.config.in_channels, size, size, device=META, dtype=dtype),
        no_tokens(pipeline, 1, "meta").to(dtype), lambda prediction: prediction,
    )  # fmt: skip


@dataclass(frozen=True)
class _Unet:
    """A pipeline of which only the UNet is asked for."""

    unet: Any


def _flux(name: str, dtype: torch.dtype) -> Parts:
    """Flux.1-dev at 1024²: 64² latents of 16 channels in patches of 2, 512 tokens of text."""
    del name
    import transformers
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    with META:
        transformer = FluxTransformer2DModel(guidance_embeds=True)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16,
        )  # fmt: skip
        t5 = transformers.T5EncoderModel(
            transformers.T5Config(
                d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, vocab_size=32128,
                feed_forward_proj="gated-gelu",
            )
        )  # fmt: skip
        clip = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12)
        )
    for part in (transformer, vae, t5, clip):
        part.to(dtype)

    def denoiser(network: Any, x: Tensor, tokens: Tensor) -> Tensor:
        found: Tensor = network(
            hidden_states=x, encoder_hidden_states=tokens, pooled_projections=tokens.new_zeros(1, 768),
            timestep=tokens.new_ones(1), guidance=tokens.new_ones(1), img_ids=tokens.new_zeros(x.shape[1], 3),
            txt_ids=tokens.new_zeros(512, 3), return_dict=False,
        )[0]  # fmt: skip
        return found

    def unpacked(prediction: Tensor) -> Tensor:
        return prediction.view(1, 64, 64, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, 16, 128, 128)

    return Parts(
        denoiser, transformer, vae, [clip, t5], torch.zeros(1, 64 * 64, 64, device=META, dtype=dtype),
        torch.zeros(1, 512, 4096, device=META, dtype=dtype), unpacked,
    )  # fmt: skip


class _Flash(torch.autograd.Function):
    """Attention's shapes, and what flash attention keeps for its backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, rows)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del gradient
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def _flash_attention() -> Iterator[None]:
    """Put `_Flash` in the place of torch's attention, which on the meta device is the plain one."""
    functional = torch.nn.functional
    own = functional.scaled_dot_product_attention

    def flash(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        found: Tensor = _Flash.apply(query, key, value)  # type: ignore[no-untyped-call]
        return found

    functional.scaled_dot_product_attention = flash
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own


def _bytes(network: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in network.parameters())


if __name__ == "__main__":
    typer.run(main)
