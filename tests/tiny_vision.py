"""Tiny language models that see pictures, and their processor: what encodes the text of many recent pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .tiny import qwen_text_encoder

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A chat template that adds nothing to the text."""
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
PATCH, MERGED = 4, 2
"""The size of a picture's patches, and how many in a row become one token."""


def qwen_tokenizer(length: int = 2048) -> Any:
    """A byte-level Qwen2Tokenizer without merges: each character is a token, and so is each special token."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocab = {piece: i for i, piece in enumerate([*bytes_to_unicode().values(), *SPECIAL])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], model_max_length=length)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    tokenizer.chat_template = CHAT
    return tokenizer


def _ids(tokenizer: Any) -> dict[str, int]:
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>"}
    names["vision_end"] = "<|vision_end|>"
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(piece) for name, piece in names.items()}


def qwen25_vl(tokenizer: Any) -> Any:
    """A Qwen2.5-VL with 16 channels that is given pictures."""
    sees = {"patch_size": PATCH, "spatial_merge_size": MERGED, "window_size": 16, "fullatt_block_indexes": [0]}
    return qwen_text_encoder(tokenizer, sees, **_ids(tokenizer))


def qwen3_vl(tokenizer: Any, head: str = "ForConditionalGeneration", layers: int = 3) -> Any:
    """A Qwen3-VL with 16 channels."""
    import transformers

    config = transformers.Qwen3VLConfig(
        text_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(tokenizer),
            "rope_parameters": {
                "mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e4, "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
            "patch_size": PATCH, "spatial_merge_size": MERGED, "deepstack_visual_indexes": [0],
        },
        **_ids(tokenizer),
    )  # fmt: skip
    return getattr(transformers, f"Qwen3VL{head}")(config).eval()


class VisionProcessor:
    """Texts and pictures as Qwen's processor gives them to its models.

    transformers makes that processor only where torchvision is installed, because it takes videos too.

    Attributes:
        tokenizer: of the texts.
        image_processor: transformers' own, of the pictures.
        image_token_id: the token that stands for a piece of a picture.
    """

    image_token = "<|image_pad|>"

    def __init__(self, tokenizer: Any) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.tokenizer, self.image_token_id = tokenizer, _ids(tokenizer)["image_token_id"]
        self.image_processor = Qwen2VLImageProcessorPil(
            patch_size=PATCH, merge_size=MERGED, min_pixels=8 * 8, max_pixels=32 * 32
        )

    def __call__(self, text: Any, images: Any = None, return_tensors: str = "pt", **options: Any) -> Any:
        """Return the tokens, in which each picture's place is as long as its patches are many, and the patches."""
        from transformers import BatchFeature

        texts = [text] if isinstance(text, str) else list(text)
        pictures: dict[str, Any] = {}
        if images is not None:
            pictures = dict(self.image_processor(images=images, return_tensors=return_tensors))
            counts = iter((pictures["image_grid_thw"].prod(-1) // MERGED**2).tolist())
            for i, each in enumerate(texts):
                first, *others = each.split(self.image_token)
                texts[i] = first + "".join(self.image_token * next(counts) + other for other in others)
        tokens = self.tokenizer(texts, return_tensors=return_tensors, **options)
        seen = (tokens["input_ids"] == self.image_token_id).long()
        return BatchFeature({**tokens, **pictures, "mm_token_type_ids": seen})

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Any]], tokenize: bool = False, **options: Any
    ) -> Any:
        """Return the messages' texts one after the other, or their tokens."""
        del options
        text = ""
        for message in conversation:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            text += "".join(part.get("text", f"<|vision_start|>{self.image_token}<|vision_end|>") for part in parts)
        return [self.tokenizer(text)["input_ids"]] if tokenize else text

    def batch_decode(self, ids: torch.Tensor, **options: Any) -> list[str]:
        """Return the texts of tokens."""
        texts: list[str] = self.tokenizer.batch_decode(ids, **options)
        return texts
