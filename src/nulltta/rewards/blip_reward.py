"""Rewards in which BLIP reads the prompt while it sees the image, and an MLP scores what it has read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.rewards import blip, checkpoint_files, state_dict
from nulltta.rewards.mlp import Mlp, load_mlp
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest

BERT = "google-bert/bert-base-uncased"  # the usual source of the tokenizer


class BlipReward(Reward):
    """(MLP(feature) − mean)/deviation, (B,).

    Args:
        model: the image encoder and the text encoder that attends to it.
        mlp: scores the first token's feature.
        preprocess: of images.
        tokenizer: of prompts, which are padded and truncated to `length` tokens.
        name: the reward's name.
        length: in tokens.
        mean: of the MLP's output over the authors' images; 0 to leave it as it is.
        deviation: likewise; 1 to leave it as it is.
    """

    def __init__(
        self,
        model: blip.Blip,
        mlp: Mlp,
        preprocess: Preprocess,
        tokenizer: Any,
        name: str,
        *,
        length: int,
        mean: float = 0.0,
        deviation: float = 1.0,
    ) -> None:
        self.name, self.length, self.mean, self.deviation = name, length, mean, deviation
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
        return ((scores - self.mean) / self.deviation).to(images.device)

    def _tokens(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Return a prompt's token ids and attention mask, (length,) each."""
        if prompt not in self._ids:
            found = self.tokenizer(
                [prompt], padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
            )
            self._ids[prompt] = (found.input_ids[0], found.attention_mask[0])
        return self._ids[prompt]


def load_blip_reward(
    request: RewardRequest,
    hub: str,
    files: Sequence[str],
    kind: str,
    *,
    length: int,
    mean: float = 0.0,
    deviation: float = 1.0,
    between: Callable[[], nn.Module] = nn.Identity,
) -> BlipReward:
    """Load a checkpoint with the tensors `blip.*` and `mlp.*`, whose sizes are read off their shapes.

    Args:
        request: what to load.
        hub: the usual hub id.
        files: the names of the checkpoint's file.
        kind: the kind of checkpoint, for messages: "an ImageReward".
        length: as of `BlipReward`, and so are mean and deviation.
        mean: likewise.
        deviation: likewise.
        between: as of `Mlp`.

    Raises:
        LoadError: if the file is missing, damaged, or not such a checkpoint.
    """
    name, device, dtype = request.name, request.device, request.dtype
    path = checkpoint_files.find(request.source or hub, files, reward=name, sha256=request.sha256)
    what = f"'{path}' is not {kind} checkpoint"
    state = state_dict.read(path)
    networks = {key.removeprefix("blip."): value for key, value in state.items() if key.startswith("blip.")}
    rest = {key.removeprefix("mlp."): value for key, value in state.items() if not key.startswith("blip.")}
    config = blip.config(networks, what)
    model = state_dict.fill(
        lambda: blip.Blip(config), blip.remap(networks), what=what, device=device, dtype=dtype, ignore=blip.IGNORED
    )
    mlp = load_mlp(rest, config["text"]["hidden_size"], what=what, device=device, dtype=dtype, between=between)
    side = config["vision"]["image_size"]
    words = checkpoint_files.tokenizer("BertTokenizer", [str(path.parent), BERT], reward=name)
    preprocess = Preprocess((side, side), half="round")
    return BlipReward(model, mlp, preprocess, words, name, length=length, mean=mean, deviation=deviation)
