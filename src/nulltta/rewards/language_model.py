"""What is common to rewards that ask a language model of transformers: loading it, batches of tokens, its output."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nulltta.errors import InvalidValue, LoadError, first_line
from nulltta.rewards import state_dict
from nulltta.rewards.request import RewardRequest


def from_pretrained(kind: str, what: str, request: RewardRequest, place: Path | None, **options: Any) -> Any:
    """Load a frozen model through transformers, refusing what transformers would fill with random numbers.

    Args:
        kind: the name of its class.
        what: the file and what it should be, for messages.
        request: whose device and dtype are used.
        place: the directory; None if the options give the tensors.
        options: for the class's own `from_pretrained`.

    Raises:
        LoadError: if tensors are missing or of another shape, or if transformers cannot load it.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        model, found = getattr(transformers, kind).from_pretrained(
            place, dtype=request.dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (OSError, ValueError, RuntimeError, LookupError, ImportError, StrictDataclassError) as error:
        raise LoadError(f"{what}: {first_line(error)}") from error
    state_dict.require_match(
        what, missing=sorted(found["missing_keys"]), misshapen=sorted(name for name, *_ in found["mismatched_keys"])
    )
    return model.to(request.device).eval().requires_grad_(False)


def batched(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack token ids of several lengths as ids and mask (B, L).

    They are padded on the right, which a causal model does not look at, so that a row does not depend on the others.
    """
    masks = [torch.ones_like(row) for row in rows]
    return pad_sequence(list(rows), batch_first=True).to(device), pad_sequence(masks, batch_first=True).to(device)


def outputs_at(model: Any, places: Tensor, **inputs: Tensor | None) -> Tensor:
    """Compute what a causal model's output layer gives at P places (B, P) of each row, (B, P, outputs), and no more."""
    kept = torch.tensor(sorted(set(places.flatten().tolist())), device=places.device)  # (U,): most rows share places
    found: Tensor = model(**inputs, use_cache=False, logits_to_keep=kept).logits  # (B, U, outputs)
    return found[torch.arange(len(places), device=places.device)[:, None], torch.searchsorted(kept, places)]


def single_token(words: Any, text: str) -> int:
    """Return the id of a text that is one token."""
    ids: list[int] = words(text, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise LoadError(f"the tokenizer cuts '{text}' into {len(ids)} tokens: its probability is not one token's")
    return ids[0]


def refuse_special_tokens(words: Any, text: str) -> None:
    """Refuse a prompt that contains the image's token or one that ends a turn: it would ask another question."""
    special = {i for i, token in words.added_tokens_decoder.items() if token.special} - {words.unk_token_id}
    if found := [i for i in words(text, add_special_tokens=False).input_ids if i in special]:
        raise InvalidValue(f"prompt with the model's own special token '{words.convert_ids_to_tokens(found[0])}'")


class _Float32Head(nn.Module):
    """An output embedding in float32: in bfloat16, logits near 20 are 0.125 apart, a factor of 1.13 in probability."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = deepcopy(head).float()  # a copy, because the input embedding may share the weight

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden.float())
        return logits


def with_precise_logits(model: Any) -> Any:
    """Give a model in half precision an output embedding in float32."""
    head = model.get_output_embeddings()
    if head.weight.dtype in (torch.bfloat16, torch.float16):
        model.set_output_embeddings(_Float32Head(head))
    return model
