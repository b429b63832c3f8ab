"""ImageReward (Xu et al., arXiv 2304.05977): BLIP reads the prompt while looking at the picture, an MLP scores it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta.rewards import blip, sources, weights
from nulltta.rewards.aesthetic import Head, head
from nulltta.rewards.preprocess import Preprocess

HUB, FILE = "THUDM/ImageReward", "ImageReward.pt"
BERT = "google-bert/bert-base-uncased"  # its tokenizer
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
LENGTH = 35  # tokens


class ImageReward:
    """(score − 0.16717)/1.03334, (B,): mean 0 and deviation 1 over its authors' pictures. Differentiable, unlike the
    official one, which works without gradient. Prompts are cut at 35 tokens."""

    differentiable = True

    def __init__(
        self, towers: blip.Blip, mlp: Head, preprocess: Preprocess, tokenizer: Any, name: str = "imagereward"
    ) -> None:
        self.name = name
        self.towers, self.mlp, self.preprocess, self.tokenizer = towers, mlp, preprocess, tokenizer
        self._ids: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        weight = next(self.towers.parameters())
        ids, masks = (torch.stack(rows) for rows in zip(*map(self._tokens, prompts), strict=True))
        pixels = self.preprocess(images.to(weight.device)).to(weight.dtype)
        feature = self.towers(pixels, ids.to(weight.device), masks.to(weight.device))
        scores: Tensor = self.mlp(feature.to(next(self.mlp.parameters()).dtype))[:, 0]
        return ((scores - MEAN) / DEVIATION).to(images.device)

    def _tokens(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, (35,) each."""
        if prompt not in self._ids:
            found = self.tokenizer(
                [prompt], padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
            )
            self._ids[prompt] = (found.input_ids[0], found.attention_mask[0])
        return self._ids[prompt]


def load(
    name: str, source: str | Path | None, device: torch.device, dtype: torch.dtype, sha256: str | None
) -> ImageReward:
    """`source`: ImageReward.pt or its directory; BERT's tokenizer beside it, or from the hub."""
    path = sources.find(source or HUB, [FILE], reward=name, sha256=sha256)
    what = f"'{path}' is no ImageReward checkpoint"
    state = weights.read(path)
    towers = {key.removeprefix("blip."): value for key, value in state.items() if key.startswith("blip.")}
    rest = {key.removeprefix("mlp."): value for key, value in state.items() if not key.startswith("blip.")}
    config = blip.config(towers, what)
    model = weights.fill(
        lambda: blip.Blip(config), blip.remap(towers), what=what, device=device, dtype=dtype, ignore=blip.IGNORED
    )
    mlp = head(rest, config["text"]["hidden_size"], what=what, device=device, dtype=dtype)
    side = config["vision"]["image_size"]
    words = sources.tokenizer("BertTokenizer", [str(path.parent), BERT], reward=name)
    return ImageReward(model, mlp, Preprocess((side, side), half="round"), words, name)
