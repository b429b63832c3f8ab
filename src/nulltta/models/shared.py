"""What several adapters do alike, as plain functions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nulltta.contracts import Embedding, GuidedModel
from nulltta.errors import InvalidValue
from nulltta.models.frozen import Frozen

_DISTILLED = re.compile(
    r"turbo|lightning|hyper[-_]?sd|schnell|sprint|(?<!de)(?<!de[-_])distill|(?<![a-z])(lcm|tcd|dmd2?)(?![a-z])", re.I
)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Where the stock pipeline puts its null embedding: what `NullText.apply` needs to know of a family.

    Attributes:
        denoisers: names of the pipeline's components that predict.
        tensors: name in the `Embedding` -> keyword of the denoiser's forward, "outer.inner" for one in a dictionary.
        batched: the pipeline evaluates [null; cond] in one call; else cond first, then null, in two calls.
        timestep_scale: what the pipeline multiplies t by before the denoiser sees it: a number, or the name of the
            entry of the denoiser's configuration that holds it.
    """

    denoisers: tuple[str, ...]
    tensors: dict[str, str]
    batched: bool
    timestep_scale: float | str = 1.0

    def denoisers_of(self, pipeline: Any) -> list[Any]:
        """Those that are there: Wan 2.1 has one of Wan 2.2's two."""
        return [part for name in self.denoisers if (part := getattr(pipeline, name, None)) is not None]


class PipelineModel(GuidedModel):
    """What every adapter of a diffusers pipeline has.

    Attributes:
        WIRING: where the stock pipeline puts its null embedding.
        NULLS: the null texts from which the family can start.
        vae: the autoencoder.
        tiny_decoder: the small decoder that `decode(x0, "tiny")` uses; None if there is none.
    """

    WIRING: ClassVar[Wiring]
    NULLS: ClassVar[tuple[str, ...]] = ("text",)
    vae: Frozen
    tiny_decoder: Any = None

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(C, h, w) at the checkpoint's own resolution."""
        config = denoiser(self.pipeline).config
        size = config.sample_size
        return (config.in_channels, *((size, size) if isinstance(size, int) else size))

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's type."""
        found: torch.dtype = self.WIRING.denoisers_of(self.pipeline)[0].dtype
        return found

    def enable_checkpointing(self) -> None:
        """Recompute the activations of every denoiser that supports it; the pipeline's own calls do not."""
        for name in self.WIRING.denoisers:
            if (part := getattr(self, name, None)) is not None:
                part.recompute = True

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Images in [0, 1]; no gradient where the decoder's output is clamped.

        Args:
            x0: clean latents (N, C, h, w).
            detail: "full", or "tiny" for `tiny_decoder`.
        """
        vae = self.tiny_decoder if detail == "tiny" else self.vae
        if vae is None or vae is self.vae:
            require_full(detail)
        return unit_range(vae.decode(unscaled(vae, x0)).sample)


def denoiser(pipeline: Any) -> Any:
    """The pipeline's (first) denoiser."""
    return getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)


def refuse_distilled(pipeline: Any) -> None:
    """Refuse a model that was distilled to run without classifier-free guidance, giving what shows it.

    Errors: `NullTTAError`. A model whose configuration does not show it and whose name does not say it gets through.
    """
    scheduler = type(pipeline.scheduler).__name__
    part, reason = denoiser(pipeline), None
    names = [str(each.config.get("_name_or_path") or "").rstrip("/").rsplit("/", 1)[-1] for each in (pipeline, part)]
    if scheduler in ("LCMScheduler", "TCDScheduler"):
        reason = f"its scheduler is {scheduler}"
    elif part.config.get("time_cond_proj_dim") is not None:
        reason = "its denoiser takes the guidance scale as an input (time_cond_proj_dim)"
    elif found := _DISTILLED.search("\n".join(names)):
        reason = f"its name says '{found.group()}'"
    if reason:
        raise InvalidValue(f"this model is guidance-distilled ({reason}): it has no null branch to optimise")


def timesteps(value: float, like: Tensor) -> Tensor:
    """(N,), t for each of N latents, in float32."""
    return torch.full((len(like),), value, dtype=torch.float32, device=like.device)


def stack_padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Texts of (L_i, D) -> (B, max L, D), zeros past each one's end, and their lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), lengths


def with_pooled(tokens: Tensor, null: Tensor, pooled: Tensor, null_pooled: Tensor) -> tuple[Embedding, Embedding]:
    """What `encode_prompt` of a family with pooled embeddings returns -> (c, φ)."""
    return {"tokens": tokens.float(), "pooled": pooled.float()}, {"tokens": null.float(), "pooled": null_pooled.float()}


@torch.no_grad()
def encode_masked(
    pipeline: Any, prompts: Sequence[str], negatives: Sequence[str], null: str, limit: int, **options: Any
) -> tuple[Embedding, Embedding]:
    """{"tokens": (B, limit, D), "mask": (B, limit)} of prompts and negatives; warns of text that is cut.

    null: "masked" keeps the null text's mask, "open" lets the null branch see its padding too.
    """
    warn_if_cut(pipeline.tokenizer, [*prompts, *negatives], limit)
    tokens, mask, null_tokens, null_mask = pipeline.encode_prompt(
        list(prompts), negative_prompt=list(negatives), device=pipeline.device, **options
    )
    if null == "open":
        null_mask = torch.ones_like(null_mask)
    return {"tokens": tokens.float(), "mask": mask.long()}, {"tokens": null_tokens.float(), "mask": null_mask.long()}


def unscaled(vae: Any, x0: Tensor) -> Tensor:
    """What the autoencoder decodes, by its configuration: (x0 / scale + shift)·std + mean, of those it has."""
    config = vae.config
    latents: Tensor = x0 / config.get("scaling_factor", 1.0) + (config.get("shift_factor") or 0.0)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        each = (-1, *[1] * (x0.dim() - 2))  # a channel
        mean, std = (torch.tensor(v).to(x0).view(each) for v in (config.latents_mean, config.latents_std))
        latents = latents * std + mean
    return latents.to(vae.dtype)


def unit_range(images: Tensor) -> Tensor:
    """Decoder output in [−1, 1] -> float32 images in [0, 1]; no gradient where it is clamped."""
    return (images.float() / 2 + 0.5).clamp(0, 1)


def require_full(detail: str) -> None:
    """Refuse a detail that only a tiny decoder has.

    Raises:
        InvalidValue: if the detail is not "full".
    """
    if detail == "tiny":
        raise InvalidValue("this model has no tiny decoder: load_model takes one as tiny_decoder, or use full")
    if detail != "full":
        raise InvalidValue(f"unknown detail '{detail}': choose one of full, tiny")


def warn_if_cut(tokenizer: Any, prompts: Sequence[str], limit: int | None = None) -> None:
    """Warn of each prompt past the tokenizer's length, naming what was lost."""
    limit = limit or int(tokenizer.model_max_length)
    for prompt in dict.fromkeys(prompts):
        ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(ids) > limit:
            lost = tokenizer.decode(ids[limit - 1 : -1], skip_special_tokens=True).strip()
            warnings.warn(f"the prompt is longer than {limit} tokens; cut off: '{lost}'", stacklevel=4)
