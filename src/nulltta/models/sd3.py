"""Stable Diffusion 3 and 3.5: a transformer over CLIP's and T5's tokens and a pooled embedding; flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import Embedding, NoiseStep
from nulltta.models import flow
from nulltta.models.frozen import Frozen
from nulltta.models.shared import (
    Wiring,
    refuse_distilled,
    timesteps,
    warn_if_cut,
    with_pooled,
)


class StableDiffusion3(flow.FlowModel):
    """`StableDiffusion3Pipeline` as a `GuidedModel`, with or without its T5 encoder (text_encoder_3=None).

    The embedding is {"tokens": (B, 77 + L, D), "pooled": (B, P)}; without T5 the last L tokens are zeros at first,
    and are optimised like the others.
    """

    WIRING = Wiring(("transformer",), {"tokens": "encoder_hidden_states", "pooled": "pooled_projections"}, batched=True)

    def __init__(self, pipeline: Any, name: str = "StableDiffusion3Pipeline") -> None:
        refuse_distilled(pipeline)
        self.name, self.pipeline = name, pipeline
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.scheduler = flow.own(pipeline.scheduler)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """Both embeddings; warns of text that T5, or without it CLIP, cuts off."""
        t5 = self.pipeline.tokenizer_3
        warn_if_cut(t5 or self.pipeline.tokenizer, [*prompts, *negatives], limit=256 if t5 else 77)
        with torch.no_grad():
            found = self.pipeline.encode_prompt(
                list(prompts), None, None, device=self.pipeline.device, negative_prompt=list(negatives)
            )
        return with_pooled(*found)

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """The checkpoint's noise levels, shifted for its own resolution where its scheduler asks for that."""
        config = self.transformer.config
        tokens = (config.sample_size // config.patch_size) ** 2
        dynamic = self.scheduler.config.get("use_dynamic_shifting")
        options = {"mu": flow.exponential_shift(self.scheduler, tokens, highest=1.16)} if dynamic else {}
        return flow.schedule(self.scheduler, num_inference_steps, **options)

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
