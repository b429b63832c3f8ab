"""Prompts that are longer than a model reads are announced, with what it does not see."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nulltta.contracts import Embedding
from nulltta.prompts import EncodedPrompt


def warn_if_cut(
    pipeline: Any, token_ids: Sequence[tuple[str, Tensor]], texts: Sequence[str], embeddings: Sequence[Embedding]
) -> None:
    """Warn of each text of which the denoiser sees a part only, naming what was lost.

    Args:
        pipeline: the pipeline.
        token_ids: what the text encoders were given, by the encoder's name.
        texts: the prompts and negative prompts.
        embeddings: what came of them: a pipeline may cut after encoding.
    """
    kept = max((value.shape[1] for each in embeddings for value in each.values() if value.dim() == 3), default=0)
    rows: dict[str, list[list[int]]] = {}
    for name, ids in token_ids:
        rows.setdefault(name, []).extend(ids.reshape(-1, ids.shape[-1]).tolist())
    for text in dict.fromkeys(texts):
        if isinstance(text, EncodedPrompt):
            continue
        losses = [_lost(pipeline, _tokenizer(pipeline, name), text, seen, kept) for name, seen in rows.items()]
        known = [loss for loss in losses if loss is not None]
        if known and all(loss[0] for loss in known):
            lost, limit = min(known, key=lambda loss: len(loss[0]))
            warnings.warn(f"the prompt is longer than {limit} tokens; cut off: '{lost}'", stacklevel=4)


def _tokenizer(pipeline: Any, encoder: str) -> Any:
    return getattr(pipeline, encoder.replace("text_encoder", "tokenizer"), None)


def _lost(
    pipeline: Any, tokenizer: Any, text: str, rows: Sequence[Sequence[int]], kept: int
) -> tuple[str, int] | None:  # fmt: skip
    """What of a text none of the rows holds, or is beyond the tokens that are kept, and the number of tokens that are
    read; None if that cannot be told."""
    if tokenizer is None or not callable(tokenizer):
        return None
    if hasattr(pipeline, "maybe_convert_prompt"):  # a textual inversion may have several tokens
        text = pipeline.maybe_convert_prompt(text, tokenizer)

    def words(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    ids: Sequence[int] = []
    for wording in dict.fromkeys((text, text.lower().strip())):  # some pipelines read small letters only
        try:
            ids = tokenizer(wording, add_special_tokens=False, truncation=False, verbose=False).input_ids
        except (TypeError, ValueError):
            return None
        inner = list(ids[1:-1])  # at its edges a text's tokens may merge with what surrounds it
        if not inner or any(_place(row, inner) for row in rows):
            return (words(ids[kept:]), kept) if 0 < kept < len(ids) else ("", 0)
        if best := max((_shared(row, inner) for row in rows), default=0):
            return words(ids[1 + best :]), len(rows[0])
    # Its own wording was changed before, so that its length is all there is to compare.
    longest = len(rows[0])
    return (words(ids[longest:]), longest) if len(ids) > longest else None


def _place(row: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(row[i : i + len(part)]) == list(part) for i in range(len(row) - len(part) + 1))


def _shared(row: Sequence[int], part: Sequence[int]) -> int:
    """How many of the first tokens of `part` end the row, or stand before its closing token."""
    for count in range(len(part) - 1, 0, -1):
        if any(list(row[-count - end : len(row) - end]) == list(part[:count]) for end in (0, 1)):
            return count
    return 0
