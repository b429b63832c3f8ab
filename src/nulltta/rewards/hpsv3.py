"""HPSv3 (Ma et al., arXiv 2508.03789): Qwen2-VL reads the image and the prompt, and an MLP rates them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.errors import LoadError
from nulltta.rewards import checkpoint_files, state_dict
from nulltta.rewards.language_model import from_pretrained
from nulltta.rewards.mlp import load_mlp
from nulltta.rewards.patches import QwenPatches
from nulltta.rewards.qwen_vl import QwenVL
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.sharing import shared

HUB, FILES = "MizzenAI/HPSv3", ("HPSv3.safetensors",)
BASE = "Qwen/Qwen2-VL-7B-Instruct"  # the usual source of the configuration, the tokenizer and the image processor
TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28
"""The number of pixels to which images are scaled, up or down."""
QUESTION = Path(__file__).with_name("hpsv3_question.txt").read_text(encoding="utf-8")
"""What the model is asked, word for word as in the authors' package `hpsv3` (MIT licence)."""


class HPSv3(Reward):
    """The mean μ of the predicted human rating, (B,), about 0 to 15; its predicted deviation σ is not used."""

    def __init__(self, model: QwenVL, name: str = "hpsv3") -> None:
        self.name, self.model = name, model
        self.token = model.token(TOKEN)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        rows = [self.model.conversation(QUESTION.replace("{text_prompt}", prompt), prompt) for prompt in prompts]
        ratings = self.model.outputs(images, rows, self.token, text_positions=True)  # as in training
        return ratings[:, 0].to(images.device)


class _RatingHead(nn.Module):
    """The MLP in float32 at least, in the place of the language model's output layer."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden: Tensor) -> Tensor:
        ratings: Tensor = self.mlp(hidden if hidden.dtype == torch.float64 else hidden.float())
        return ratings


def load(request: RewardRequest) -> HPSv3:
    """Load HPSv3.safetensors, with Qwen2-VL's configuration, tokenizer and image processor from the same directory, if
    it has a config.json, or from the hub.

    Raises:
        LoadError: if a file is missing, damaged, or not such a checkpoint.
    """
    path = checkpoint_files.find(request.source or HUB, FILES, reward=request.name, sha256=request.sha256)
    return HPSv3(shared(path, request.device, request.dtype, lambda: _model(path, request)), request.name)


def _model(path: Path, request: RewardRequest) -> QwenVL:
    """Load the model and put the MLP in the place of its output layer."""
    from transformers import Qwen2VLConfig

    home, what = str(path.parent) if (path.parent / "config.json").is_file() else BASE, f"'{path}' is not HPSv3"
    words = checkpoint_files.tokenizer("AutoTokenizer", [home], reward=request.name)
    words.add_special_tokens({"additional_special_tokens": [TOKEN]}, replace_extra_special_tokens=False)
    state = state_dict.read(path)
    head = {f"layers.{name[8:]}": state.pop(name) for name in list(state) if name.startswith("rm_head.")}
    config = Qwen2VLConfig.from_dict(checkpoint_files.read_json(home, "config.json", reward=request.name))
    embedding = next((value for name, value in state.items() if name.endswith("embed_tokens.weight")), None)
    if embedding is None or len(embedding) < len(words):
        raise LoadError(f"{what}: the file lacks an embedding of {len(words)} tokens")
    config.text_config.vocab_size = len(embedding)  # the official file has one row per token of the tokenizer
    model = from_pretrained("Qwen2VLForConditionalGeneration", what, request, None, config=config, state_dict=state)
    mlp = load_mlp(
        head, config.text_config.hidden_size,
        what=what, device=request.device, dtype=request.dtype, between=nn.ReLU, outputs=2,
    )  # fmt: skip
    pixels = checkpoint_files.image_processor(home, reward=request.name)
    patches = replace(QwenPatches.from_config(pixels), fewest=PIXELS, most=PIXELS)
    reader = QwenVL(model, patches, words)
    model.set_output_embeddings(_RatingHead(mlp))
    return reader
