"""SigLIP and SigLIP 2, of fixed and of variable resolution (Zhai et al., arXiv 2303.15343; Tschannen et al.,
2502.14786)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.rewards import sources, weights
from nulltta.rewards.clip import Tower, shared, unit
from nulltta.rewards.patches import NaflexPatches
from nulltta.rewards.preprocess import Preprocess

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


class NaflexTower(Tower):
    """A `Siglip2Model`: it reads pictures in their own shape, as up to 256 patches (or what its file says)."""

    def image_features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> (B, F), with gradient."""
        patches, grid = self.preprocess(images.to(self.device))
        found = self.model.get_image_features(pixel_values=patches.to(self.dtype), spatial_shapes=grid)
        return unit(found.pooler_output)


def load(
    name: str, source: str | Path | None, device: torch.device, dtype: torch.dtype, sha256: str | None
) -> SiglipScore:
    """`source`: a directory or hub id of a `SiglipModel` (SigLIP, and SigLIP 2 of fixed resolution) or of a
    `Siglip2Model` (NaFlex). Prompts are in lower case and padded to the tower's length (64), as it was trained."""
    source = source or HUB
    path = sources.find(source, sources.WEIGHTS, reward=name, sha256=sha256)

    def make() -> Tower:
        import transformers

        settings = sources.read_json(source, "config.json", reward=name)
        kind = settings.get("model_type")
        if kind not in ("siglip", "siglip2"):
            raise InvalidValue(f"reward '{name}': '{source}' is a {kind} model, not a SigLIP")
        family = "Siglip2" if kind == "siglip2" else "Siglip"
        config = getattr(transformers, f"{family}Config").from_dict(settings)
        model = weights.fill(
            lambda: getattr(transformers, f"{family}Model")(config),
            weights.read(*sources.shards(path, source, reward=name)),
            what=f"'{path}' is no such SigLIP", device=device, dtype=dtype,
            ignore=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
        )  # fmt: skip
        words = sources.tokenizer("AutoTokenizer", [str(path.parent), sources.folder(source)], reward=name)
        length = config.text_config.max_position_embeddings

        def tokenize(prompt: str) -> Tensor:  # the feature is that of the last place: the side of the padding matters
            ids: Tensor = words(
                [prompt.lower()], padding="max_length", padding_side="right", truncation=True, max_length=length,
                return_tensors="pt",
            ).input_ids  # fmt: skip
            return ids

        pixels = sources.image_processor(source, reward=name)
        if kind == "siglip2":
            return NaflexTower(model, NaflexPatches.from_config(pixels), tokenize, device)
        return Tower(model, Preprocess.from_config(pixels), tokenize, device)

    return SiglipScore(shared(path, device, dtype, make), name)
