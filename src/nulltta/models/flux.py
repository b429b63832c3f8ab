"""Flux and QwenImage: packed latents, flow matching shifted by resolution, guidance as `true_cfg_scale`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import Embedding, NoiseStep
from nulltta.errors import InvalidValue
from nulltta.models import flow
from nulltta.models.frozen import Frozen
from nulltta.models.shared import (
    Wiring,
    refuse_distilled,
    require_full,
    stack_padded,
    timesteps,
    unit_range,
    unscaled,
    warn_if_cut,
)


def pack(x: Tensor) -> Tensor:
    """Latents (N, C, h, w) -> 2×2 patches (N, h/2·w/2, 4C)."""
    n, c, h, w = x.shape
    patches = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(n, h * w // 4, 4 * c)


def unpack(patches: Tensor, height: int, width: int) -> Tensor:
    """`pack`'s inverse; height and width are the latent's."""
    n, c = len(patches), patches.shape[2] // 4
    x = patches.reshape(n, height // 2, width // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(n, c, height, width)


def _latent_size(model: Flux | QwenImage) -> tuple[int, int]:
    """Latent height and width, even, of a size in pixels."""
    factor = model.pipeline.vae_scale_factor * 2
    return 2 * (model.size[0] // factor), 2 * (model.size[1] // factor)


def _schedule(model: Flux | QwenImage, num_inference_steps: int) -> list[NoiseStep]:
    """Equal steps of σ, shifted for the image's size."""
    height, width = _latent_size(model)
    return flow.shifted(model.scheduler, num_inference_steps, height * width // 4)


def _latent_shape(model: Flux | QwenImage) -> tuple[int, ...]:
    """(C, h, w) for `size`, unpacked."""
    return (model.transformer.config.in_channels // 4, *_latent_size(model))


def _from_pipeline(model: Flux | QwenImage, latents: Tensor) -> Tensor:
    """The pipeline's packed latents, unpacked."""
    return unpack(latents, *_latent_size(model))


class Flux(flow.FlowModel):
    """`FluxPipeline` as a `GuidedModel`, with a null branch of its own, as its `true_cfg_scale` has.

    The embedding is {"tokens": (B, L, D), "pooled": (B, P)}. Flux-dev also takes a distilled guidance as an input;
    under true guidance it is held at `embedded_guidance`, 1 for both branches, the model's own unguided prediction.

    size: (height, width) in pixels, free to set; the pipeline's default at first.
    """

    WIRING = Wiring(
        ("transformer",), {"tokens": "encoder_hidden_states", "pooled": "pooled_projections"}, batched=False,
        timestep_scale=1e-3,
    )  # fmt: skip
    embedded_guidance = 1.0

    schedule = _schedule
    latent_shape = property(_latent_shape)
    to_pipeline = staticmethod(pack)
    from_pipeline = _from_pipeline

    def __init__(self, pipeline: Any, name: str = "FluxPipeline") -> None:
        refuse_distilled(pipeline)
        if not pipeline.transformer.config.guidance_embeds and not pipeline.scheduler.config.use_dynamic_shifting:
            raise InvalidValue(
                "this model is guidance-distilled (a Flux without guidance input and without shifted noise levels is "
                "schnell): it has no null branch to optimise"
            )
        self.name, self.pipeline = name, pipeline
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.scheduler = flow.own(pipeline.scheduler)
        self.size = (pipeline.default_sample_size * pipeline.vae_scale_factor,) * 2

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """T5's tokens and CLIP's pooled embedding of prompts and negatives; warns of text that T5 cuts off."""
        warn_if_cut(self.pipeline.tokenizer_2, [*prompts, *negatives], limit=512)
        return self._encode(prompts), self._encode(negatives)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity (N, C, h, w), in float32."""
        dtype, tokens = self.transformer.dtype, embedding["tokens"]
        height, width = x.shape[-2:]
        places = self.pipeline._prepare_latent_image_ids(len(x), height // 2, width // 2, x.device, dtype)
        guidance = torch.full((len(x),), self.embedded_guidance, device=x.device)
        output: Tensor = self.transformer(
            hidden_states=pack(x).to(dtype),
            timestep=timesteps(step.timestep, x) / 1000,
            guidance=guidance if self.transformer.config.guidance_embeds else None,
            pooled_projections=embedding["pooled"].to(dtype),
            encoder_hidden_states=tokens.to(dtype),
            txt_ids=torch.zeros(tokens.shape[1], 3, device=x.device, dtype=dtype),
            img_ids=places,
        ).sample
        return unpack(output.float(), height, width)

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        tokens, pooled, _ = self.pipeline.encode_prompt(list(texts), None, device=self.pipeline.device)
        return {"tokens": tokens.float(), "pooled": pooled.float()}


class QwenImage(flow.FlowModel):
    """`QwenImagePipeline` as a `GuidedModel`.

    The embedding is {"tokens": (B, L, D), "mask": (B, L)}, as long as the longest text and masked past each one's
    end; the mask is fixed. Guidance is the pipeline's: rescaled to the conditional prediction's norm, patch by patch.

    size: (height, width) in pixels, free to set; the pipeline's default at first.
    """

    WIRING = Wiring(
        ("transformer",), {"tokens": "encoder_hidden_states", "mask": "encoder_hidden_states_mask"}, batched=False,
        timestep_scale=1e-3,
    )  # fmt: skip

    schedule = _schedule
    latent_shape = property(_latent_shape)
    to_pipeline = staticmethod(pack)
    from_pipeline = _from_pipeline

    def __init__(self, pipeline: Any, name: str = "QwenImagePipeline") -> None:
        refuse_distilled(pipeline)
        if pipeline.transformer.config.guidance_embeds:
            raise InvalidValue("this model is guidance-distilled (guidance_embeds): it has no null branch to optimise")
        self.name, self.pipeline = name, pipeline
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.scheduler = flow.own(pipeline.scheduler)
        self.size = (pipeline.default_sample_size * pipeline.vae_scale_factor,) * 2

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """Each text alone, then padded to the longest and masked."""
        return self._encode(prompts), self._encode(negatives)

    def guide(self, null: Tensor, cond: Tensor, scale: float) -> Tensor:
        """ε̃ = g·‖ε(c)‖/‖g‖ with g = ε(φ) + s·(ε(c) − ε(φ)), the norms over each 2×2 patch."""
        mixed, target = pack(null + scale * (cond - null)), pack(cond)
        rescaled = mixed * (target.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True))
        return unpack(rescaled, *null.shape[-2:])

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity (N, C, h, w), in float32."""
        dtype, mask = self.transformer.dtype, embedding["mask"]
        height, width = x.shape[-2:]
        output: Tensor = self.transformer(
            hidden_states=pack(x).to(dtype),
            timestep=timesteps(step.timestep, x) / 1000,
            encoder_hidden_states=embedding["tokens"].to(dtype),
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
        ).sample
        return unpack(output.float(), height, width)

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Images in [0, 1]; no gradient where the decoder clamps."""
        require_full(detail)
        video = unscaled(self.vae, x0)[:, :, None]  # one frame
        return unit_range(self.vae.decode(video).sample[:, :, 0])

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        rows = [self.pipeline.encode_prompt([text], device=self.pipeline.device)[0][0].float() for text in texts]
        tokens, lengths = stack_padded(rows)
        return {
            "tokens": tokens,
            "mask": (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]).long(),
        }
