"""Wan and LTX: text to video, flow matching. Latents are (N, C, F, h, w) and a decoded video (N, frames, 3, H, W).

A reward's score of a video is its mean over the frames that `decode` gives: a model's `scored_frames` of them, evenly
spaced, or all if it is None. `size`, (height, width) in pixels, and `frames` are free to set, the pipeline's defaults
at first.
"""

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
    encode_masked,
    refuse_distilled,
    require_full,
    timesteps,
    unit_range,
    unscaled,
    warn_if_cut,
)


def _latent_size(model: Wan | LTX) -> tuple[int, int, int]:
    """(F, h, w) of the latent of `frames` of `size`."""
    time, space = model.compression
    return (model.frames - 1) // time + 1, model.size[0] // space, model.size[1] // space


def _latent_shape(model: Wan | LTX) -> tuple[int, ...]:
    """(C, F, h, w) for `size` and `frames`."""
    return (model.transformer.config.in_channels, *_latent_size(model))


def _scored(model: Wan | LTX, video: Tensor) -> Tensor:
    """The autoencoder's (N, 3, F, H, W) -> the frames to score (N, F, 3, H, W), in [0, 1]."""
    frames = unit_range(video).transpose(1, 2)
    if model.scored_frames is None:
        return frames
    kept = torch.linspace(0, frames.shape[1] - 1, model.scored_frames).round().long()
    return frames[:, kept.to(frames.device)]


class Wan(flow.FlowModel):
    """`WanPipeline` (2.1, and 2.2 with its two denoisers) as a `GuidedModel`.

    The embedding is {"tokens": (B, 512, D)}, zeros past the text's end at first.
    """

    WIRING = Wiring(("transformer", "transformer_2"), {"tokens": "encoder_hidden_states"}, batched=False)

    latent_shape = property(_latent_shape)

    def __init__(self, pipeline: Any, name: str = "WanPipeline") -> None:
        refuse_distilled(pipeline)
        if pipeline.config.expand_timesteps:
            raise InvalidValue("this Wan gives each frame its own timestep (expand_timesteps), which is not supported")
        self.name, self.pipeline = name, pipeline
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.transformer_2 = None if pipeline.transformer_2 is None else Frozen(pipeline.transformer_2)
        self.scheduler = flow.own(pipeline.scheduler)
        self.compression = (pipeline.vae_scale_factor_temporal, pipeline.vae_scale_factor_spatial)
        self.size, self.frames = (480, 832), 81
        self.scored_frames: int | None = None

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """UMT5's tokens of prompts and negatives; warns of text that is cut."""
        warn_if_cut(self.pipeline.tokenizer, [*prompts, *negatives], limit=512)
        with torch.no_grad():
            tokens, null = self.pipeline.encode_prompt(
                list(prompts), list(negatives), max_sequence_length=512, device=self.pipeline.device
            )
        return {"tokens": tokens.float()}, {"tokens": null.float()}

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity, in float32; below the boundary timestep, where there is one, by the second denoiser."""
        boundary = self.pipeline.config.boundary_ratio
        late = boundary is not None and step.timestep < boundary * self.scheduler.config.num_train_timesteps
        denoiser = self.transformer_2 if late and self.transformer_2 is not None else self.transformer
        output: Tensor = denoiser(
            hidden_states=x.to(denoiser.dtype),
            timestep=timesteps(step.timestep, x),
            encoder_hidden_states=embedding["tokens"].to(denoiser.dtype),
        ).sample
        return output.float()

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Frames (N, F, 3, H, W) in [0, 1]; no gradient where the decoder clamps."""
        require_full(detail)
        return _scored(self, self.vae.decode(unscaled(self.vae, x0)).sample)


class LTX(flow.FlowModel):
    """`LTXPipeline` (LTX-Video) as a `GuidedModel`.

    The embedding is {"tokens": (B, 128, D), "mask": (B, 128)}; the mask is fixed. The decoder's own timestep, where it
    has one, is the pipeline's default, 0.

    frame_rate: a second's frames, which the denoiser is told; free to set.
    """

    WIRING = Wiring(
        ("transformer",), {"tokens": "encoder_hidden_states", "mask": "encoder_attention_mask"}, batched=True
    )
    NULLS = ("masked", "open")

    latent_shape = property(_latent_shape)

    def __init__(self, pipeline: Any, name: str = "LTXPipeline", null: str = "masked") -> None:
        refuse_distilled(pipeline)
        if any(pipeline.vae.config.decoder_inject_noise):
            raise InvalidValue(
                "this LTX's decoder draws noise that no seed fixes (decoder_inject_noise): not supported"
            )
        self.name, self.pipeline, self.null = name, pipeline, null
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.scheduler = flow.own(pipeline.scheduler)
        self.compression = (pipeline.vae_temporal_compression_ratio, pipeline.vae_spatial_compression_ratio)
        self.size, self.frames, self.frame_rate = (512, 704), 161, 25
        self.scored_frames: int | None = None

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """T5's tokens and masks of prompts and negatives; warns of text that is cut."""
        return encode_masked(self.pipeline, prompts, negatives, self.null, 128)

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """Equal steps of σ, shifted for the video's size."""
        frames, height, width = _latent_size(self)
        return flow.shifted(self.scheduler, num_inference_steps, frames * height * width)

    def to_pipeline(self, x: Tensor) -> Tensor:
        """Latents (N, C, F, h, w) -> one token a latent pixel, (N, F·h·w, C)."""
        return x.flatten(2).transpose(1, 2)

    def from_pipeline(self, latents: Tensor) -> Tensor:
        """The pipeline's tokens, as latents again."""
        return latents.transpose(1, 2).reshape(len(latents), latents.shape[2], *_latent_size(self))

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity (N, C, F, h, w), in float32."""
        dtype, (frames, height, width) = self.transformer.dtype, x.shape[2:]
        time, space = self.compression
        output: Tensor = self.transformer(
            hidden_states=self.to_pipeline(x).to(dtype),
            encoder_hidden_states=embedding["tokens"].to(dtype),
            timestep=timesteps(step.timestep, x),
            encoder_attention_mask=embedding["mask"],
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(time / self.frame_rate, space, space),
        ).sample
        return self.from_pipeline(output.float())

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Frames (N, F, 3, H, W) in [0, 1]; no gradient where they are clamped."""
        require_full(detail)
        vae = self.vae
        mean, std = (each[:, None, None, None].to(x0) for each in (vae.latents_mean, vae.latents_std))
        latents = (x0 * std / vae.config.scaling_factor + mean).to(vae.dtype)
        timestep = timesteps(0.0, latents).to(vae.dtype) if vae.config.timestep_conditioning else None
        return _scored(self, vae.decode(latents, timestep).sample)
