"""Wan: text to video. Latents are (N, C, F, h, w) and a decoded video (N, frames, 3, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.models import flow
from nulltta.models.shared import (
    Wiring,
    freeze,
    full_only,
    noise,
    refuse_distilled,
    timesteps,
    unit_range,
    unscaled,
    warn_if_cut,
)
from nulltta.types import Embedding, NoiseStep, NullTTAError


class Wan:
    """`WanPipeline` (2.1, and 2.2 with its two denoisers) as a `GuidedModel`.

    The embedding is {"tokens": (B, 512, D)}, zeros past the text's end at first. A reward's score of a video is its
    mean over the frames that `decode` gives: `scored_frames` of them, evenly spaced, or all if it is None.

    size: (height, width) in pixels, and frames: their number, 4n + 1; free to set, the pipeline's defaults at first.
    """

    WIRING = Wiring(("transformer", "transformer_2"), {"tokens": "encoder_hidden_states"}, batched=False)
    NULLS = ("text",)

    schedule = flow.own_levels
    clean = staticmethod(flow.clean)
    transition = staticmethod(flow.transition)

    def __init__(self, pipeline: Any, name: str = "WanPipeline") -> None:
        refuse_distilled(pipeline)
        if pipeline.config.expand_timesteps:
            raise NullTTAError("this Wan gives each frame its own timestep (expand_timesteps), which is not supported")
        freeze(pipeline, "transformer", "transformer_2", "vae", "text_encoder")
        self.name, self.pipeline, self.vae = name, pipeline, pipeline.vae
        self.transformer = pipeline.transformer
        self.scheduler = flow.own(pipeline.scheduler)
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

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """(batch, C, F, h, w) for `size` and `frames`."""
        height, width = (side // self.pipeline.vae_scale_factor_spatial for side in self.size)
        frames = (self.frames - 1) // self.pipeline.vae_scale_factor_temporal + 1
        return noise((batch, self.transformer.config.in_channels, frames, height, width), generator)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity, in float32; below the boundary timestep, where there is one, by the second denoiser."""
        boundary = self.pipeline.config.boundary_ratio
        late = boundary is not None and step.timestep < boundary * self.scheduler.config.num_train_timesteps
        denoiser = self.pipeline.transformer_2 if late else self.transformer
        output: Tensor = denoiser(
            hidden_states=x.to(denoiser.dtype),
            timestep=timesteps(step.timestep, x),
            encoder_hidden_states=embedding["tokens"].to(denoiser.dtype),
        ).sample
        return output.float()

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Frames (N, F, 3, H, W) in [0, 1]; no gradient where the decoder clamps."""
        full_only(detail)
        video: Tensor = self.vae.decode(unscaled(self.vae, x0)).sample
        frames = unit_range(video).transpose(1, 2)
        if self.scored_frames is None:
            return frames
        kept = torch.linspace(0, frames.shape[1] - 1, self.scored_frames).round().long()
        return frames[:, kept.to(frames.device)]
