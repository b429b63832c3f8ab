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

from nulltta.models import flow
from nulltta.models.diffusion import Diffusion
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

_TENSORS = {"tokens": "encoder_hidden_states", "mask": "encoder_attention_mask"}


class PixArtSigma:
    """`PixArtSigmaPipeline` as a `GuidedModel`: ε-prediction and DDIM steps at its scheduler's spacing.

    The embedding is {"tokens": (B, 300, D), "mask": (B, 300)}; the mask is fixed.
    """

    WIRING = Wiring(("transformer",), _TENSORS, batched=True)
    NULLS = ("masked", "open")

    def __init__(self, pipeline: Any, name: str = "PixArtSigmaPipeline", null: str = "masked") -> None:
        refuse_distilled(pipeline)
        freeze(pipeline, "transformer", "vae", "text_encoder")
        self.name, self.pipeline, self.null = name, pipeline, null
        self.transformer, self.vae = pipeline.transformer, pipeline.vae
        process = Diffusion(pipeline.scheduler)
        self.scheduler = process.scheduler
        self.schedule, self.clean, self.transition = process.schedule, process.clean, process.transition

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """T5's tokens and masks of prompts and negatives; warns of text that is cut."""
        return _encode(self.pipeline, prompts, negatives, self.null)

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """(batch, C, h, w) at the checkpoint's own resolution."""
        config = self.transformer.config
        return noise((batch, config.in_channels, config.sample_size, config.sample_size), generator)

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

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Images in [0, 1]; no gradient where the decoder's output is clamped."""
        full_only(detail)
        latents = (x0 / self.vae.config.scaling_factor).to(self.vae.dtype)
        return unit_range(self.vae.decode(latents).sample)


class Sana:
    """`SanaPipeline` as a `GuidedModel`: flow matching, a deep-compression autoencoder.

    The embedding is {"tokens": (B, 300, D), "mask": (B, 300)}; the mask is fixed. Prompts are given the pipeline's own
    long instruction, negatives are not, as in the pipeline.
    """

    WIRING = Wiring(("transformer",), _TENSORS, batched=True, timestep_scale="timestep_scale")
    NULLS = ("masked", "open")

    clean = staticmethod(flow.clean)
    transition = staticmethod(flow.transition)

    def __init__(self, pipeline: Any, name: str = "SanaPipeline", null: str = "masked") -> None:
        refuse_distilled(pipeline)
        freeze(pipeline, "transformer", "vae", "text_encoder")
        self.name, self.pipeline, self.null = name, pipeline, null
        self.transformer, self.vae = pipeline.transformer, pipeline.vae
        self.scheduler = flow.own(pipeline.scheduler)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """Gemma's tokens and masks of prompts and negatives; warns of text that is cut."""
        call = inspect.signature(type(self.pipeline).__call__).parameters
        instruction = call["complex_human_instruction"].default
        return _encode(self.pipeline, prompts, negatives, self.null, complex_human_instruction=instruction)

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """The checkpoint's noise levels."""
        return flow.schedule(self.scheduler, num_inference_steps)

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """(batch, C, h, w) at the checkpoint's own resolution."""
        config = self.transformer.config
        return noise((batch, config.in_channels, config.sample_size, config.sample_size), generator)

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

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Images in [0, 1]; no gradient where the decoder's output is clamped."""
        full_only(detail)
        return unit_range(self.vae.decode((x0 / self.vae.config.scaling_factor).to(self.vae.dtype)).sample)


@torch.no_grad()
def _encode(
    pipeline: Any, prompts: Sequence[str], negatives: Sequence[str], null: str, **options: Any
) -> tuple[Embedding, Embedding]:
    warn_if_cut(pipeline.tokenizer, [*prompts, *negatives], limit=300)
    tokens, mask, null_tokens, null_mask = pipeline.encode_prompt(
        list(prompts), True, negative_prompt=list(negatives), device=pipeline.device, **options
    )
    if null == "open":
        null_mask = torch.ones_like(null_mask)
    return (
        {"tokens": tokens.float(), "mask": mask.long()},
        {"tokens": null_tokens.float(), "mask": null_mask.long()},
    )
