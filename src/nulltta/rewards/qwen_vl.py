"""Qwen-VL as a vision-language model that is asked a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import LoadError
from nulltta.rewards.language_model import (
    batched,
    outputs_at,
    refuse_special_tokens,
    single_token,
    with_precise_logits,
)
from nulltta.rewards.patches import QwenPatches


class QwenVL:
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL (arXiv 2409.12191, 2502.13923, 2511.21631), asked through its own chat template
    with the image first.

    Raises:
        LoadError: if the chat template does not give the image exactly one place.
    """

    def __init__(self, model: Any, patches: QwenPatches, words: Any) -> None:
        self.model: Any = with_precise_logits(model)
        self.patches, self.words = patches, words
        self.image = int(model.config.image_token_id)
        self._ids: dict[str, Tensor] = {}
        if (places := int((self.conversation("") == self.image).sum())) != 1:
            raise LoadError(f"the tokenizer's chat template gives an image {places} places, not 1")

    def token(self, text: str) -> int:
        return single_token(self.words, text)

    def tokens(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self.words(text, add_special_tokens=False).input_ids
        return ids

    @property
    def end(self) -> int:
        """The id of the token that ends an answer."""
        return int(self.words.eos_token_id)

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        return self.outputs(images, [self.conversation(question) for question in questions])

    def outputs(
        self, images: Tensor, rows: Sequence[Tensor], token: int | None = None, *, text_positions: bool = False
    ) -> Tensor:
        """Return what the model's output layer gives, (B, outputs), with gradient.

        Args:
            images: (B, 3, H, W) in [0, 1].
            rows: one conversation per image.
            token: where to take it: at this token, which each row has once; None for the last token.
            text_positions: whether the image's tokens are numbered like words, one after the other, instead of by their
                place in the image.
        """
        ids, mask, inputs = self._inputs(images, rows)
        places = mask.sum(1) - 1 if token is None else (ids == token).int().argmax(1)
        if text_positions:
            inputs["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape)
        return outputs_at(self.model, places[:, None], **inputs)[:, 0]

    def outputs_before_end(self, images: Tensor, rows: Sequence[Tensor], back: Tensor) -> Tensor:
        """Return what the output layer gives at several places of each row, (B, P, outputs), with gradient.

        Args:
            images: (B, 3, H, W) in [0, 1].
            rows: one conversation, and what was answered so far, per image.
            back: (B, P), how many tokens each place is before the row's last one.
        """
        _, mask, inputs = self._inputs(images, rows)
        return outputs_at(self.model, mask.sum(1, keepdim=True) - 1 - back.to(mask.device), **inputs)

    def _inputs(self, images: Tensor, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return token ids and mask (B, L), in which the image has one token per patch that is read, and the model's
        inputs."""
        patches, grid = self.patches(images.to(self.model.device))
        seen = int(grid[0].prod()) // self.patches.merge**2  # the tokens that the language model reads per image
        ids, mask = batched(
            [row.repeat_interleave(torch.where(row == self.image, seen, 1)) for row in rows], grid.device
        )
        return ids, mask, {
            "attention_mask": mask, "input_ids": ids, "mm_token_type_ids": (ids == self.image).int(),
            "pixel_values": patches, "image_grid_thw": grid,
        }  # fmt: skip

    def conversation(self, question: str, prompt: str | None = None) -> Tensor:
        """Return the token ids (n,) of a question, one of which stands for the image.

        Args:
            question: the whole text.
            prompt: the part of it that must not contain special tokens; None for all of it.

        Raises:
            InvalidValue: if it contains one.
        """
        if question not in self._ids:
            refuse_special_tokens(self.words, question if prompt is None else prompt)
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = self.words.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            self._ids[question] = self.words(text, return_tensors="pt").input_ids[0]
        return self._ids[question]
