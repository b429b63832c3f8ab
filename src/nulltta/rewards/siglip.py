"""SigLIP and SigLIP 2 of fixed resolution (Zhai et al., arXiv 2303.15343; Tschannen et al., 2502.14786)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nulltta.rewards import sources, weights
from nulltta.rewards.clip import FILES, Tower, shared
from nulltta.rewards.preprocess import Preprocess
from nulltta.types import NullTTAError

HUB = "google/siglip2-base-patch16-224"


class SiglipScore:
    """The probability that image and prompt belong together, σ(scale·cosine + bias), (B,) in [0, 1]."""

    differentiable = True

    def __init__(self, tower: Tower, name: str = "siglip") -> None:
        self.name, self.tower = name, tower
        self.scale = float(tower.model.logit_scale.float().exp())
        self.bias = float(tower.model.logit_bias.float())

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        logits = self.scale * self.tower.cosine(images, prompts) + self.bias
        return logits.sigmoid().to(images.device)


def load(
    name: str, source: str | Path | None, device: torch.device, dtype: torch.dtype, sha256: str | None
) -> SiglipScore:
    """`source`: a directory or hub id of a `SiglipModel`. Prompts are in lower case and padded to the tower's
    length (64), as it was trained."""
    source = source or HUB
    path = sources.find(source, FILES, reward=name, sha256=sha256)

    def make() -> Tower:
        from transformers import SiglipConfig, SiglipModel

        settings = sources.read_json(source, "config.json", reward=name)
        if settings.get("model_type") != "siglip":
            raise NullTTAError(
                f"reward '{name}': '{source}' is a {settings.get('model_type')} model, not a SigLIP of fixed resolution"
            )
        config = SiglipConfig.from_dict(settings)
        model = weights.fill(
            lambda: SiglipModel(config), weights.read(path), what=f"'{path}' is no such SigLIP",
            device=device, dtype=dtype,
            ignore=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
        )  # fmt: skip
        preprocess = Preprocess.from_config(sources.read_json(source, "preprocessor_config.json", reward=name))
        words = sources.tokenizer("AutoTokenizer", [str(path.parent), sources.folder(source)], reward=name)
        length = config.text_config.max_position_embeddings

        def tokenize(prompt: str) -> Tensor:
            ids: Tensor = words(
                [prompt.lower()], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            ).input_ids
            return ids

        return Tower(model, preprocess, tokenize, device)

    return SiglipScore(shared(path, device, dtype, make), name)
