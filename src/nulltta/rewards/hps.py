"""Human Preference Score v2 and v2.1 (Wu et al., arXiv 2306.09341): the cosine of a fine-tuned ViT-H-14."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from nulltta.rewards import open_clip, sources, weights
from nulltta.rewards.clip import ClipScore, Tower, shared, tokenizer
from nulltta.rewards.preprocess import Preprocess

HUB = "xswu/HPSv2"
FILES: Mapping[str, str] = {"hpsv2": "HPS_v2_compressed.pt", "hpsv2.1": "HPS_v2.1_compressed.pt"}


def load(
    name: str, source: str | Path | None, device: torch.device, dtype: torch.dtype, sha256: str | None
) -> ClipScore:
    """`name`: "hpsv2" or "hpsv2.1". The official package resizes float tensors: bicubic overshoot is not cut, odd
    margins round to even; antialiasing is torchvision's default since 0.17. It works under autocast on a GPU: its
    scores there differ from float32's in the fourth digit."""
    source = source or HUB
    path = sources.find(source, [FILES[name]], reward=name, sha256=sha256)

    def make() -> Tower:
        from transformers import CLIPConfig, CLIPModel

        what = f"'{path}' is no HPSv2 checkpoint"
        state = weights.read(path)
        config = CLIPConfig.from_dict(open_clip.config(state, what))
        model = weights.fill(
            lambda: CLIPModel(config), open_clip.remap(state),
            what=what, device=device, dtype=dtype, ignore=open_clip.IGNORED,
        )  # fmt: skip
        side = config.vision_config.image_size
        preprocess = Preprocess((side, side), clamp=False, half="round")
        tokenize = tokenizer([str(path.parent)], config.text_config.max_position_embeddings, name)
        return Tower(model, preprocess, tokenize, device)

    return ClipScore(shared(path, device, dtype, make), name)
