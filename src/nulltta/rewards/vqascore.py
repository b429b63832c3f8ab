"""VQAScore (Lin et al., arXiv 2404.01291): how surely a vision-language model finds the prompt in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.rewards import sources, vlm, weights
from nulltta.rewards.clip import shared
from nulltta.rewards.patches import QwenPatches
from nulltta.rewards.preprocess import Preprocess

HUB = "Qwen/Qwen2.5-VL-3B-Instruct"
QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
ANSWER = "Yes"
CLASSES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "instructblip": "InstructBlipForConditionalGeneration"}


class VQAScore:
    """P("Yes"), (B,) in [0, 1]: the softmax over the whole vocabulary at the answer's first token, given the picture
    and the question. Not restricted to yes or no, so that it is low too where the model would say something else."""

    differentiable = True

    def __init__(self, reader: vlm.Reader, name: str = "vqascore") -> None:
        self.name, self.reader = name, reader

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        logits = self.reader.logits(images, [QUESTION.format(prompt) for prompt in prompts])  # (B, vocabulary)
        return logits.softmax(-1)[:, self.reader.answer].to(images.device)


def load(
    name: str, source: str | Path | None, device: torch.device, dtype: torch.dtype, sha256: str | None
) -> VQAScore:
    """`source`: a directory or hub id of one of CLASSES, by its config.json: what `save_pretrained` of model and
    processor leave. Qwen2.5-VL's chat template is the checkpoint's own; InstructBLIP is asked the bare question."""
    source = source or HUB
    if Path(source).expanduser().is_file():
        raise InvalidValue(f"reward '{name}': '{source}' is a file: give the checkpoint's directory or its hub id")
    kind = sources.read_json(source, "config.json", reward=name).get("model_type")
    if kind not in CLASSES:
        raise InvalidValue(
            f"reward '{name}': '{source}' is a {kind} model, not one of the supported {' and '.join(CLASSES.values())}"
        )
    path = sources.find(source, sources.WEIGHTS, reward=name, sha256=sha256)

    def make() -> vlm.Reader:
        for shard in sources.shards(path, source, reward=name):
            weights.check(shard)  # transformers would not say which
        pixels = sources.image_processor(source, reward=name)
        places = [str(path.parent), str(source)]
        words = sources.tokenizer("AutoTokenizer", places, reward=name)
        if kind == "qwen2_5_vl":
            if words.chat_template is None:  # where the processor has it, and not the tokenizer
                words.chat_template = sources.read_json(source, "chat_template.json", reward=name).get("chat_template")
            return vlm.QwenVL(_model(path, kind, device, dtype), QwenPatches.from_config(pixels), words, ANSWER)
        instructions = sources.tokenizer("AutoTokenizer", places, reward=name, subfolder="qformer_tokenizer")
        return vlm.InstructBlip(
            _model(path, kind, device, dtype), Preprocess.from_config(pixels), words, instructions, ANSWER
        )

    return VQAScore(shared(path, device, dtype, make), name)


def _model(path: Path, kind: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The frozen model of a local checkpoint. transformers would fill what is missing with random numbers."""
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    what = f"'{path}' is no such {CLASSES[kind]}"
    try:
        model, found = getattr(transformers, CLASSES[kind]).from_pretrained(
            path.parent, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, RuntimeError, LookupError, ImportError, StrictDataclassError) as error:
        raise InvalidValue(f"{what}: {sources.first_line(error)}") from error
    weights.refuse(
        what, lacks=sorted(found["missing_keys"]), misshapen=sorted(name for name, *_ in found["mismatched_keys"])
    )
    return model.to(device).eval().requires_grad_(False)
