"""AuraFlow and CogView4: transformers under flow matching whose text is not masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nulltta.contracts import Embedding, NoiseStep
from nulltta.models import flow
from nulltta.models.frozen import Frozen
from nulltta.models.shared import (
    Wiring,
    refuse_distilled,
    stack_padded,
    timesteps,
    warn_if_cut,
)


class AuraFlow(flow.FlowModel):
    """`AuraFlowPipeline` as a `GuidedModel`. The embedding is {"tokens": (B, 256, D)}, zeros past the text's end at
    first: the denoiser attends to them too, so they are optimised like the others."""

    WIRING = Wiring(("transformer",), {"tokens": "encoder_hidden_states"}, batched=True, timestep_scale=1e-3)

    def __init__(self, pipeline: Any, name: str = "AuraFlowPipeline") -> None:
        refuse_distilled(pipeline)
        self.name, self.pipeline = name, pipeline
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.scheduler = flow.own(pipeline.scheduler)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """T5's tokens of prompts and negatives; warns of text that is cut."""
        warn_if_cut(self.pipeline.tokenizer, [*prompts, *negatives], limit=256)
        with torch.no_grad():
            tokens, _, null, _ = self.pipeline.encode_prompt(
                list(prompts), negative_prompt=list(negatives), device=self.pipeline.device
            )
        return {"tokens": tokens.float()}, {"tokens": null.float()}

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity, in float32."""
        dtype = self.transformer.dtype
        tokens, t = embedding["tokens"].to(dtype), (timesteps(step.timestep, x) / 1000).to(dtype)
        output: Tensor = self.transformer(x.to(dtype), encoder_hidden_states=tokens, timestep=t).sample
        return output.float()


class CogView4(flow.FlowModel):
    """`CogView4Pipeline` as a `GuidedModel`.

    The embedding is {"tokens": (B, L, D), "length": (B,)}: the pipeline pads a text to a multiple of 16 and masks
    nothing, so each text is encoded alone, and rows of unlike length are predicted apart: a prompt's result does not
    depend on its batch. The length is fixed.
    """

    WIRING = Wiring(("transformer",), {"tokens": "encoder_hidden_states"}, batched=False)

    def __init__(self, pipeline: Any, name: str = "CogView4Pipeline") -> None:
        refuse_distilled(pipeline)
        self.name, self.pipeline = name, pipeline
        self.transformer, self.vae = Frozen(pipeline.transformer), Frozen(pipeline.vae)
        self.scheduler = flow.own(pipeline.scheduler)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """GLM's tokens of prompts and negatives, each text alone; warns of text that is cut."""
        warn_if_cut(self.pipeline.tokenizer, [*prompts, *negatives], limit=1024)
        return self._encode(prompts), self._encode(negatives)

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """Whole timesteps from 1000 to 1, their levels shifted for the image's size, as the pipeline has them."""
        config, scheduler = self.transformer.config, self.scheduler.config
        tokens = (config.sample_size // config.patch_size) ** 2
        ratio = (tokens / scheduler.get("base_image_seq_len", 256)) ** 0.5
        mu = ratio * scheduler.get("max_shift", 0.75) + scheduler.get("base_shift", 0.25)
        whole = np.linspace(scheduler.num_train_timesteps, 1.0, num_inference_steps).astype(np.int64).astype(np.float32)
        levels = whole / scheduler.num_train_timesteps
        return flow.schedule(self.scheduler, num_inference_steps, timesteps=whole, sigmas=levels, mu=mu)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The velocity, in float32."""
        tokens, lengths = embedding["tokens"], embedding["length"]
        kinds = sorted(set(lengths.tolist()))
        if len(kinds) == 1:
            return self._predict(x, step, tokens[:, : kinds[0]])
        output = torch.zeros_like(x)
        for length in kinds:
            rows = (lengths == length).nonzero()[:, 0]
            output = output.index_copy(0, rows, self._predict(x[rows], step, tokens[rows, :length]))
        return output

    def _predict(self, x: Tensor, step: NoiseStep, tokens: Tensor) -> Tensor:
        dtype, factor = self.transformer.dtype, self.pipeline.vae_scale_factor
        size = torch.tensor([[side * factor for side in x.shape[-2:]]], dtype=dtype, device=x.device).repeat(len(x), 1)
        output: Tensor = self.transformer(
            hidden_states=x.to(dtype),
            encoder_hidden_states=tokens.to(dtype),
            timestep=timesteps(step.timestep, x),
            original_size=size,
            target_size=size,
            crop_coords=torch.zeros_like(size),
        ).sample
        return output.float()

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        encode, device = self.pipeline.encode_prompt, self.pipeline.device
        rows = [encode([text], do_classifier_free_guidance=False, device=device)[0][0].float() for text in texts]
        tokens, lengths = stack_padded(rows)
        return {"tokens": tokens, "length": lengths}
