"""Arithmetic on embeddings: dictionaries of named tensors, first dimension the prompts.

Floating-point tensors are what is optimised; whole-number and boolean ones (masks, lengths) ride along, fixed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nulltta.contracts import Embedding


def per_prompt(values: Tensor) -> Tensor:
    """(B, ...) -> (B,), the sum over everything but the prompts."""
    return values.flatten(1).sum(1)


def squared_norm(values: Tensor) -> Tensor:
    """(B, ...) -> (B,), ‖·‖² of each prompt's values."""
    return per_prompt(values.square())


def is_free(tensor: Tensor) -> bool:
    """Whether a named tensor of an embedding is optimised."""
    return tensor.is_floating_point()


def free(embedding: Embedding) -> dict[str, Tensor]:
    """The named tensors that are optimised."""
    return {name: tensor for name, tensor in embedding.items() if is_free(tensor)}


def distance(a: Embedding, b: Embedding) -> Tensor:
    """‖a − b‖² of each prompt, over all named tensors that are optimised: (B,)."""
    return torch.stack([squared_norm(a[name] - b[name]) for name in a if is_free(a[name])]).sum(0)


def transform(embedding: Embedding, function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The embedding with `function` applied to each tensor."""
    return {name: function(tensor) for name, tensor in embedding.items()}


def repeat(embedding: Embedding, times: int) -> dict[str, Tensor]:
    """(B, ...) -> (B·times, ...): each prompt's embedding, `times` in a row."""
    return transform(embedding, lambda tensor: tensor.repeat_interleave(times, dim=0))


def take(embedding: Embedding, rows: Tensor) -> dict[str, Tensor]:
    """The embedding of some prompts: rows (N,), whole numbers -> first dimension N."""
    return transform(embedding, lambda tensor: tensor[rows])


def where(mask: Tensor, a: Embedding, b: Embedding) -> dict[str, Tensor]:
    """Prompts of `a` where the mask (B,) is true, of `b` elsewhere."""
    return {name: torch.where(mask.view(-1, *[1] * (a[name].dim() - 1)), a[name], b[name]) for name in a}
