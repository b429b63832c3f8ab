"""Vision-language models that are asked a question about an image: the logits of the first token of their answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from nulltta.errors import LoadError
from nulltta.rewards import checkpoint_files, state_dict
from nulltta.rewards.instructblip import InstructBlip
from nulltta.rewards.language_model import from_pretrained
from nulltta.rewards.patches import QwenPatches
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.qwen_vl import QwenVL
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.sharing import shared

CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration", "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration", "instructblip": "InstructBlipForConditionalGeneration",
}  # fmt: skip
"""The supported classes of transformers, by the model_type in config.json."""


class VisionLanguageModel(Protocol):
    """A frozen vision-language model. Each question is tokenised once.

    Attributes:
        model: the model itself.
    """

    model: nn.Module

    def token(self, text: str) -> int:
        """Return the id of a text that is a single token.

        Raises:
            LoadError: if the tokenizer cuts it into several.
        """
        ...

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        """Return the logits (B, vocabulary) of the first token of the answers, in float32 at least, with gradient.

        Args:
            images: (B, 3, H, W) in [0, 1].
            questions: one per image.

        Raises:
            InvalidValue: if a question contains one of the model's special tokens.
        """
        ...


def load_model(request: RewardRequest, hub: str) -> VisionLanguageModel:
    """Load a vision-language model as `save_pretrained` of model and processor leave it.

    Args:
        request: its source is a directory or a hub id; the class follows from its config.json.
        hub: the usual hub id.

    Raises:
        LoadError: if the class is not one of `CLASSES`, or if a file is missing or damaged.
    """
    reward, source = request.name, request.source or hub
    if Path(source).expanduser().is_file():
        raise LoadError(f"reward '{reward}': '{source}' is a file: give the checkpoint's directory or its hub id")
    kind = checkpoint_files.read_json(source, "config.json", reward=reward).get("model_type")
    if kind not in CLASSES:
        raise LoadError(
            f"reward '{reward}': '{source}' is a {kind} model, not one of the supported {', '.join(CLASSES.values())}"
        )
    path = checkpoint_files.find(source, checkpoint_files.WEIGHTS, reward=reward, sha256=request.sha256)

    def make() -> VisionLanguageModel:
        for shard in checkpoint_files.shards(path, source, reward=reward):
            state_dict.check(shard)  # transformers would not say which shard is damaged
        pixels = checkpoint_files.image_processor(source, reward=reward)
        places = [str(path.parent), str(source)]
        words = checkpoint_files.tokenizer("AutoTokenizer", places, reward=reward)
        if kind != "instructblip":
            if words.chat_template is None:  # the processor has it, and not the tokenizer
                settings = checkpoint_files.read_json(source, "chat_template.json", reward=reward)
                words.chat_template = settings.get("chat_template")
            return QwenVL(_frozen(path, kind, request), QwenPatches.from_config(pixels), words)
        instructions = checkpoint_files.tokenizer("AutoTokenizer", places, reward=reward, subfolder="qformer_tokenizer")
        return InstructBlip(_frozen(path, kind, request), Preprocess.from_config(pixels), words, instructions)

    return shared(path, request.device, request.dtype, make)


def _frozen(path: Path, kind: str, request: RewardRequest) -> Any:
    """Load the weights of a local checkpoint."""
    return from_pretrained(
        CLASSES[kind], f"'{path}' is not such a {CLASSES[kind]}", request, path.parent, local_files_only=True
    )
