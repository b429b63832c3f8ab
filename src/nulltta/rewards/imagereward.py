"""ImageReward (Xu et al., arXiv 2304.05977): BLIP reads the prompt while it sees the image, and an MLP scores it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.rewards import blip, checkpoint_files, state_dict
from nulltta.rewards.mlp import Mlp, load_mlp
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest

HUB, FILE = "THUDM/ImageReward", "ImageReward.pt"
BERT = "google-bert/bert-base-uncased"  # the usual source of its tokenizer
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
LENGTH = 35  # tokens


class ImageReward(Reward):
    """(score − 0.16717)/1.03334, (B,), which has mean 0 and deviation 1 over its authors' images.

    It is differentiable, whereas the official package computes it without gradient. Prompts are truncated at 35
    tokens.
    """

    def __init__(
        self, model: blip.Blip, mlp: Mlp, preprocess: Preprocess, tokenizer: Any, name: str = "imagereward"
    ) -> None:
        self.name = name
        self.model, self.mlp, self.preprocess, self.tokenizer = model, mlp, preprocess, tokenizer
        self._ids: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model, self.mlp)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        weight = next(self.model.parameters())
        ids, masks = (torch.stack(rows) for rows in zip(*map(self._tokens, prompts), strict=True))
        pixels = self.preprocess(images.to(weight.device)).to(weight.dtype)
        feature = self.model(pixels, ids.to(weight.device), masks.to(weight.device))
        scores: Tensor = self.mlp(feature.to(next(self.mlp.parameters()).dtype))[:, 0]
        return ((scores - MEAN) / DEVIATION).to(images.device)

    def _tokens(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Return a prompt's token ids and attention mask, (35,) each."""
        if prompt not in self._ids:
            found = self.tokenizer(
                [prompt], padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
            )
            self._ids[prompt] = (found.input_ids[0], found.attention_mask[0])
        return self._ids[prompt]


def load(request: RewardRequest) -> ImageReward:
    """Load ImageReward.pt, with BERT's tokenizer from the same directory or from the hub.

    Raises:
        LoadError: if the file is missing, damaged, or not such a checkpoint.
    """
    name, device, dtype = request.name, request.device, request.dtype
    path = checkpoint_files.find(request.source or HUB, [FILE], reward=name, sha256=request.sha256)
    what = f"'{path}' is not an ImageReward checkpoint"
    state = state_dict.read(path)
    networks = {key.removeprefix("blip."): value for key, value in state.items() if key.startswith("blip.")}
    rest = {key.removeprefix("mlp."): value for key, value in state.items() if not key.startswith("blip.")}
    config = blip.config(networks, what)
    model = state_dict.fill(
        lambda: blip.Blip(config), blip.remap(networks), what=what, device=device, dtype=dtype, ignore=blip.IGNORED
    )
    mlp = load_mlp(rest, config["text"]["hidden_size"], what=what, device=device, dtype=dtype)
    side = config["vision"]["image_size"]
    words = checkpoint_files.tokenizer("BertTokenizer", [str(path.parent), BERT], reward=name)
    return ImageReward(model, mlp, Preprocess((side, side), half="round"), words, name)
