"""Vision-language models asked a question about a picture: the logits of their answer's first token."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nulltta.errors import InvalidValue
from nulltta.rewards.patches import QwenPatches
from nulltta.rewards.preprocess import Preprocess


class Reader(Protocol):
    """A frozen model that tokenises each question once. `answer` is the token whose probability is wanted."""

    answer: int

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> (B, vocabulary) at the answer's first token, with gradient, float32 at
        least. Raises NullTTAError for a question that holds one of the model's special tokens."""
        ...


class QwenVL:
    """Qwen2.5-VL (Bai et al., arXiv 2502.13923), asked through its own chat template, the picture first."""

    def __init__(self, model: Any, patches: QwenPatches, words: Any, answer: str) -> None:
        self.model, self.patches, self.words = _with_precise_logits(model), patches, words
        self.answer, self.image = _single_token(words, answer), int(model.config.image_token_id)
        self._ids: dict[str, Tensor] = {}
        if (pictures := int((self._conversation("") == self.image).sum())) != 1:
            raise InvalidValue(f"the tokenizer's chat template gives a picture {pictures} places, not 1")

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        patches, grid = self.patches(images.to(self.model.device))
        seen = int(grid[0].prod()) // self.patches.merge**2  # tokens that the language model reads of a picture
        rows = [self._conversation(question) for question in questions]
        ids, mask = _batch(
            [row.repeat_interleave(torch.where(row == self.image, seen, 1)) for row in rows], grid.device
        )
        return _last_logits(
            self.model, mask, input_ids=ids, mm_token_type_ids=(ids == self.image).int(),
            pixel_values=patches, image_grid_thw=grid,
        )  # fmt: skip

    def _conversation(self, question: str) -> Tensor:
        """Token ids (n,), one of them the picture's."""
        if question not in self._ids:
            _refuse_special_tokens(self.words, question)
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = self.words.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            self._ids[question] = self.words(text, return_tensors="pt").input_ids[0]
        return self._ids[question]


class InstructBlip:
    """InstructBLIP (Dai et al., arXiv 2305.06500) on Flan-T5 or Vicuna, asked the bare question; its Q-Former reads
    it too."""

    def __init__(self, model: Any, preprocess: Preprocess, words: Any, instructions: Any, answer: str) -> None:
        self.model, self.preprocess = _with_precise_logits(model), preprocess
        self.words, self.instructions = words, instructions
        self.answer, self.dtype = _single_token(words, answer), model.vision_model.dtype
        self._ids: dict[str, tuple[Tensor, Tensor]] = {}
        if model.config.image_token_id is None:
            raise InvalidValue("InstructBLIP's config.json lacks image_token_index: a version from before 2024")

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        config, device = self.model.config, self.model.device
        texts, instructions = zip(*(self._tokens(question) for question in questions), strict=True)
        ids, mask = _batch(texts, device)
        qformer_ids, qformer_mask = _batch(instructions, device)
        inputs = {
            "pixel_values": self.preprocess(images.to(device)).to(self.dtype), "input_ids": ids,
            "qformer_input_ids": qformer_ids, "qformer_attention_mask": qformer_mask,
        }  # fmt: skip
        if config.use_decoder_only_language_model:
            return _last_logits(self.model, mask, **inputs)
        start = torch.full((len(ids), 1), config.text_config.decoder_start_token_id, device=device)
        found: Tensor = self.model(**inputs, attention_mask=mask, decoder_input_ids=start, use_cache=False).logits
        return found[:, 0]

    def _tokens(self, question: str) -> tuple[Tensor, Tensor]:
        """Token ids for the language model, the picture's before the question's, and for the Q-Former: (n,) each."""
        if question not in self._ids:
            _refuse_special_tokens(self.words, question)
            config = self.model.config
            text, instruction = (
                w([question], return_tensors="pt").input_ids[0] for w in (self.words, self.instructions)
            )
            if len(instruction) > (most := config.qformer_config.max_position_embeddings):
                raise InvalidValue(f"prompt of {len(instruction)} tokens: InstructBLIP's Q-Former reads {most}")
            picture = torch.full((config.num_query_tokens,), config.image_token_id)
            self._ids[question] = torch.cat([picture, text]), instruction
        return self._ids[question]


def _batch(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of several lengths as ids and mask (B, L), padded on the right, where a causal model does not look:
    what a row gives does not depend on the others."""
    masks = [torch.ones_like(row) for row in rows]
    return pad_sequence(list(rows), batch_first=True).to(device), pad_sequence(masks, batch_first=True).to(device)


def _last_logits(model: Any, mask: Tensor, **inputs: Tensor) -> Tensor:
    """A causal model's logits (B, vocabulary) after each row's last token; no others are computed."""
    ends = mask.sum(1) - 1
    kept = torch.tensor(sorted(set(ends.tolist())), device=ends.device)  # (U,): most rows end at the same place
    logits: Tensor = model(**inputs, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits  # (B, U, ·)
    return logits[torch.arange(len(ends)), torch.searchsorted(kept, ends)]


def _single_token(words: Any, answer: str) -> int:
    ids: list[int] = words(answer, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise InvalidValue(f"the tokenizer cuts '{answer}' into {len(ids)} tokens: its probability is not one token's")
    return ids[0]


def _refuse_special_tokens(words: Any, text: str) -> None:
    """A prompt that held the picture's token, or one that ends its turn, would put another question."""
    special = {i for i, token in words.added_tokens_decoder.items() if token.special} - {words.unk_token_id}
    if found := [i for i in words(text, add_special_tokens=False).input_ids if i in special]:
        raise InvalidValue(f"prompt with the model's own special token '{words.convert_ids_to_tokens(found[0])}'")


class _Precise(nn.Module):
    """An output embedding in float32: in bfloat16, logits near 20 lie 0.125 apart, a factor 1.13 in probability."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = deepcopy(head).float()  # a copy: the input embedding may share its weight

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden.float())
        return logits


def _with_precise_logits(model: Any) -> Any:
    head = model.get_output_embeddings()
    if head.weight.dtype in (torch.bfloat16, torch.float16):
        model.set_output_embeddings(_Precise(head))
    return model
