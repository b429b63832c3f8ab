"""Stable Diffusion 3 and 3.5: a transformer over CLIP's and T5's tokens and a pooled embedding; flow matching."""

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
    warn_if_cut,
)
from nulltta.types import Embedding, NoiseStep


class StableDiffusion3:
    """`StableDiffusion3Pipeline` as a `GuidedModel`, with or without its T5 encoder (text_encoder_3=None).

    The embedding is {"tokens": (B, 77 + L, D), "pooled": (B, P)}; without T5 the last L tokens are zeros at first,
    and are optimised like the others.
    """

    WIRING = Wiring(("transformer",), {"tokens": "encoder_hidden_states", "pooled": "pooled_projections"}, batched=True)
    NULLS = ("text",)

    clean = staticmethod(flow.clean)
    transition = staticmethod(flow.transition)

    def __init__(self, pipeline: Any, name: str = "StableDiffusion3Pipeline") -> None:
        refuse_distilled(pipeline)
        freeze(pipeline, "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
        self.name, self.pipeline = name, pipeline
        self.transformer, self.vae = pipeline.transformer, pipeline.vae
        self.scheduler = flow.own(pipeline.scheduler)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """Both embeddings; warns of text that T5, or without it CLIP, cuts off."""
        t5 = self.pipeline.tokenizer_3
        warn_if_cut(t5 or self.pipeline.tokenizer, [*prompts, *negatives], limit=256 if t5 else 77)
        with torch.no_grad():
            tokens, null_tokens, pooled, null_pooled = self.pipeline.encode_prompt(
                list(prompts), None, None, device=self.pipeline.device, negative_prompt=list(negatives)
            )
        return (
            {"tokens": tokens.float(), "pooled": pooled.float()},
            {"tokens": null_tokens.float(), "pooled": null_pooled.float()},
        )

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """The checkpoint's noise levels, shifted for its own resolution where its scheduler asks for that."""
        config = self.transformer.config
        tokens = (config.sample_size // config.patch_size) ** 2
        dynamic = self.scheduler.config.get("use_dynamic_shifting")
        options = {"mu": flow.exponential_shift(self.scheduler, tokens, highest=1.16)} if dynamic else {}
        return flow.schedule(self.scheduler, num_inference_steps, **options)

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """(batch, C, h, w) at the checkpoint's own resolution."""
        size = self.transformer.config.sample_size
        return noise((batch, self.transformer.config.in_channels, size, size), generator)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity, in float32."""
        dtype = self.transformer.dtype
        output: Tensor = self.transformer(
            hidden_states=x.to(dtype),
            timestep=timesteps(step.timestep, x),
            encoder_hidden_states=embedding["tokens"].to(dtype),
            pooled_projections=embedding["pooled"].to(dtype),
        ).sample
        return output.float()

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Images in [0, 1]; no gradient where the decoder's output is clamped."""
        full_only(detail)
        config = self.vae.config
        latents = x0 / config.scaling_factor + config.shift_factor
        return unit_range(self.vae.decode(latents.to(self.vae.dtype)).sample)
