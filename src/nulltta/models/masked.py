"""PixArt-Σ and Sana: transformers that attend to their text through a mask.

The encoded null text "" is one or two tokens and padding, and the mask lets the denoiser see, and a gradient reach,
only those. `null="masked"` keeps the pipeline's mask: plain sampling is the stock pipeline's, and few tokens move.
`null="open"` lets the null branch see its padding too: every token moves, and the unoptimised null is another one.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import Embedding, NoiseStep
from nulltta.models import flow
from nulltta.models.diffusion import Diffusion, DiffusionModel
from nulltta.models.frozen import Frozen
from nulltta.models.shared import (
    Wiring,
    encode_masked,
    refuse_distilled,
    timesteps,
)

_TENSORS = {"tokens": "encoder_hidden_states", "mask": "encoder_attention_mask"}


class PixArtSigma(DiffusionModel):
    """`PixArtSigmaPipeline` as a `GuidedModel`: ε-prediction and DDIM steps at its scheduler's spacing.

    The embedding is {"tokens": (B, 300, D), "mask": (B, 300)}; the mask is fixed.
    """

    WIRING = Wiring(("transformer",), _TENSORS, batched=True)
    NULLS = ("masked", "open")

    def __init__(self, pipeline: Any, name: str = "PixArtSigmaPipeline", null: str = "masked") -> None:
        refuse_distilled(pipeline)
        self.name, self.pipeline, self.null = name, pipeline, null
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.process = Diffusion(pipeline.scheduler)
        self.scheduler = self.process.scheduler

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """T5's tokens and masks of prompts and negatives; warns of text that is cut."""
        return encode_masked(self.pipeline, prompts, negatives, self.null, 300)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """ε, in float32; the predicted variance is left aside."""
        dtype = self.transformer.dtype
        output: Tensor = self.transformer(
            x.to(dtype),
            encoder_hidden_states=embedding["tokens"].to(dtype),
            encoder_attention_mask=embedding["mask"],
            timestep=torch.full((len(x),), int(step.timestep), device=x.device),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return output[:, : x.shape[1]].float()


class Sana(flow.FlowModel):
    """`SanaPipeline` as a `GuidedModel`: flow matching, a deep-compression autoencoder.

    The embedding is {"tokens": (B, 300, D), "mask": (B, 300)}; the mask is fixed. Prompts are given the pipeline's own
    long instruction, negatives are not, as in the pipeline.
    """

    WIRING = Wiring(("transformer",), _TENSORS, batched=True, timestep_scale="timestep_scale")
    NULLS = ("masked", "open")

    def __init__(self, pipeline: Any, name: str = "SanaPipeline", null: str = "masked") -> None:
        refuse_distilled(pipeline)
        self.name, self.pipeline, self.null = name, pipeline, null
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.scheduler = flow.own(pipeline.scheduler)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """Gemma's tokens and masks of prompts and negatives; warns of text that is cut."""
        call = inspect.signature(type(self.pipeline).__call__).parameters
        instruction = call["complex_human_instruction"].default
        options = {"complex_human_instruction": instruction}
        return encode_masked(self.pipeline, prompts, negatives, self.null, 300, **options)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity, in float32."""
        dtype = self.transformer.dtype
        output: Tensor = self.transformer(
            x.to(dtype),
            encoder_hidden_states=embedding["tokens"].to(dtype),
            encoder_attention_mask=embedding["mask"],
            timestep=timesteps(step.timestep, x) * self.transformer.config.timestep_scale,
        ).sample
        return output[:, : x.shape[1]].float()
