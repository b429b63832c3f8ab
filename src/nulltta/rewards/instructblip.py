"""InstructBLIP as a vision-language model that is asked a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue, LoadError
from nulltta.rewards.language_model import (
    batched,
    outputs_at,
    refuse_special_tokens,
    single_token,
    with_precise_logits,
)
from nulltta.rewards.preprocess import Preprocess


class InstructBlip:
    """InstructBLIP (Dai et al., arXiv 2305.06500) on Flan-T5 or Vicuna, asked the bare question, which its Q-Former
    reads too.

    Raises:
        LoadError: if the model's configuration has no token for images.
    """

    def __init__(self, model: Any, preprocess: Preprocess, words: Any, instructions: Any) -> None:
        self.model: Any = with_precise_logits(model)
        self.preprocess = preprocess
        self.words, self.instructions = words, instructions
        self.dtype = model.vision_model.dtype
        self._ids: dict[str, tuple[Tensor, Tensor]] = {}
        if model.config.image_token_id is None:
            raise LoadError("InstructBLIP's config.json lacks image_token_index: it is a version from before 2024")

    def token(self, text: str) -> int:
        return single_token(self.words, text)

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        config, device = self.model.config, self.model.device
        texts, instructions = zip(*(self._tokens(question) for question in questions), strict=True)
        ids, mask = batched(texts, device)
        qformer_ids, qformer_mask = batched(instructions, device)
        inputs = {
            "pixel_values": self.preprocess(images.to(device)).to(self.dtype), "input_ids": ids,
            "qformer_input_ids": qformer_ids, "qformer_attention_mask": qformer_mask,
        }  # fmt: skip
        if config.use_decoder_only_language_model:
            return outputs_at(self.model, mask.sum(1, keepdim=True) - 1, attention_mask=mask, **inputs)[:, 0]
        start = torch.full((len(ids), 1), config.text_config.decoder_start_token_id, device=device)
        found: Tensor = self.model(**inputs, attention_mask=mask, decoder_input_ids=start, use_cache=False).logits
        return found[:, 0]

    def _tokens(self, question: str) -> tuple[Tensor, Tensor]:
        """Return token ids (n,) for the language model, the image's before the question's, and for the Q-Former."""
        if question not in self._ids:
            refuse_special_tokens(self.words, question)
            config = self.model.config
            text, instruction = (
                w([question], return_tensors="pt").input_ids[0] for w in (self.words, self.instructions)
            )
            if len(instruction) > (most := config.qformer_config.max_position_embeddings):
                raise InvalidValue(f"prompt of {len(instruction)} tokens: InstructBLIP's Q-Former reads {most}")
            image = torch.full((config.num_query_tokens,), config.image_token_id)
            self._ids[question] = torch.cat([image, text]), instruction
        return self._ids[question]
