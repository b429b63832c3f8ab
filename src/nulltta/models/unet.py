"""Stable Diffusion 1.x, 2.x, XL and Kolors: a UNet conditioned on a text's tokens, ε- or v-prediction, DDIM steps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nulltta.contracts import Embedding, NoiseStep
from nulltta.models.diffusion import Diffusion, DiffusionModel
from nulltta.models.frozen import Frozen
from nulltta.models.shared import (
    Wiring,
    refuse_distilled,
    warn_if_cut,
    with_pooled,
)


class StableDiffusion(DiffusionModel):
    """`StableDiffusionPipeline` as a `GuidedModel`.

    The embedding is {"tokens": (B, L, D)}, kept in float32 and cast to the denoiser's type where it is used.
    """

    WIRING = Wiring(("unet",), {"tokens": "encoder_hidden_states"}, batched=True)
    NULLS = ("text",)

    def __init__(self, pipeline: Any, name: str = "StableDiffusionPipeline") -> None:
        refuse_distilled(pipeline)
        self.name, self.pipeline = name, pipeline
        self.unet, self.vae = Frozen(pipeline.unet), Frozen(pipeline.vae)
        self.process = Diffusion(pipeline.scheduler)
        self.scheduler = self.process.scheduler

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """{"tokens": (B, L, D)} of prompts and negatives; warns, naming it, of text past the tokenizer's length."""
        warn_if_cut(self.pipeline.tokenizer, [*prompts, *negatives])
        with torch.no_grad():
            cond, null = self.pipeline.encode_prompt(
                list(prompts), self.pipeline.device, 1, True, negative_prompt=list(negatives)
            )
        return {"tokens": cond.float()}, {"tokens": null.float()}

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """ε or v, as the checkpoint predicts, in float32."""
        dtype = self.unet.dtype
        tokens = embedding["tokens"].to(dtype)
        output: Tensor = self.unet(x.to(dtype), step.timestep, encoder_hidden_states=tokens).sample
        return output.float()


class StableDiffusionXL(DiffusionModel):
    """`StableDiffusionXLPipeline` as a `GuidedModel`: two text encoders, a pooled embedding, size conditioning.

    The embedding is {"tokens": (B, L, D), "pooled": (B, P)}: both are optimised, each with its own prior term. The
    size conditioning (original size, crop, target size) is the image's own size, for both branches.

    null: "text" starts from the encoded negative prompt, as the pipeline does when it is given one, "" included;
        "zeros" starts from zeros where the negative prompt is "", as the pipeline does when it is given none.
    """

    WIRING = Wiring(
        ("unet",), {"tokens": "encoder_hidden_states", "pooled": "added_cond_kwargs.text_embeds"}, batched=True
    )
    NULLS: ClassVar[tuple[str, ...]] = ("text", "zeros")

    def __init__(self, pipeline: Any, name: str = "StableDiffusionXLPipeline", null: str = "text") -> None:
        refuse_distilled(pipeline)
        self.name, self.pipeline, self.null = name, pipeline, null
        self.unet, self.vae = Frozen(pipeline.unet), Frozen(pipeline.vae)
        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae = Frozen(copy.deepcopy(pipeline.vae).float())  # it overflows in float16
        self.process = Diffusion(pipeline.scheduler)
        self.scheduler = self.process.scheduler

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """{"tokens": (B, L, D), "pooled": (B, P)} of prompts and negatives; warns of text that is cut."""
        warn_if_cut(self.pipeline.tokenizer_2, [*prompts, *negatives])
        with torch.no_grad():
            tokens, null_tokens, pooled, null_pooled = self.pipeline.encode_prompt(
                list(prompts), device=self.pipeline.device, negative_prompt=list(negatives)
            )
        if self.null == "zeros":
            kept = torch.tensor([bool(text) for text in negatives], device=tokens.device)
            null_tokens, null_pooled = null_tokens * kept[:, None, None], null_pooled * kept[:, None]
        return with_pooled(tokens, null_tokens, pooled, null_pooled)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """ε or v, as the checkpoint predicts, in float32."""
        dtype = self.unet.dtype
        height, width = (side * self.pipeline.vae_scale_factor for side in x.shape[-2:])
        time_ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype, device=x.device)
        added = {"text_embeds": embedding["pooled"].to(dtype), "time_ids": time_ids.expand(len(x), -1)}
        tokens = embedding["tokens"].to(dtype)
        output: Tensor = self.unet(
            x.to(dtype), step.timestep, encoder_hidden_states=tokens, added_cond_kwargs=added
        ).sample
        return output.float()


class Kolors(StableDiffusionXL):
    """`KolorsPipeline` as a `GuidedModel`: SDXL's UNet, told of the text by ChatGLM instead of CLIP.

    The embedding is {"tokens": (B, 256, D), "pooled": (B, D)}, pooled being the last token's state. A text is padded
    on its left and the UNet sees the padding, so all 256 tokens are optimised.
    """

    NULLS = ("text",)

    def __init__(self, pipeline: Any, name: str = "KolorsPipeline") -> None:
        super().__init__(pipeline, name)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """{"tokens": (B, 256, D), "pooled": (B, D)} of prompts and negatives; warns of text that is cut."""
        warn_if_cut(self.pipeline.tokenizer, [*prompts, *negatives], limit=256)
        with torch.no_grad():
            found = self.pipeline.encode_prompt(
                list(prompts), device=self.pipeline.device, negative_prompt=list(negatives)
            )
        return with_pooled(*found)
