"""Arithmetic on embeddings: dictionaries of named tensors whose first dimension counts prompts.

Floating-point tensors are optimised; integer and boolean tensors (masks, lengths) are fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nulltta.contracts import Embedding


def batch_size(embedding: Embedding) -> int:
    """Return B."""
    return len(next(iter(embedding.values())))


def per_prompt(values: Tensor) -> Tensor:
    """Sum over everything but the prompts: (B, ...) -> (B,)."""
    return values.flatten(1).sum(1)


def squared_norm(values: Tensor) -> Tensor:
    """Return ‖·‖² of each prompt's values: (B, ...) -> (B,)."""
    return per_prompt(values.square())


def is_free(tensor: Tensor) -> bool:
    """Return whether a tensor of an embedding is optimised."""
    return tensor.is_floating_point()


def free(embedding: Embedding) -> dict[str, Tensor]:
    """Return the named tensors that are optimised."""
    return {name: tensor for name, tensor in embedding.items() if is_free(tensor)}


def distance(a: Embedding, b: Embedding) -> Tensor:
    """Return ‖a − b‖² of each prompt over all tensors that are optimised: (B,)."""
    return torch.stack([squared_norm(a[name] - b[name]) for name in a if is_free(a[name])]).sum(0)


def transform(embedding: Embedding, function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Apply a function to each tensor."""
    return {name: function(tensor) for name, tensor in embedding.items()}


def take(embedding: Embedding, rows: Tensor) -> dict[str, Tensor]:
    """Return the embedding of the prompts with numbers `rows` (N,): first dimension N."""
    return transform(embedding, lambda tensor: tensor[rows])


def copies(embedding: Embedding, count: int, device: torch.device) -> dict[str, Tensor]:
    """Return `count` copies of an embedding without a batch dimension, along a new first dimension."""
    return transform(embedding, lambda tensor: tensor[None].repeat(count, *[1] * tensor.dim()).to(device))


def where(mask: Tensor, a: Embedding, b: Embedding) -> dict[str, Tensor]:
    """Return the prompts of `a` where the mask (B,) is true, those of `b` elsewhere."""
    return {name: torch.where(mask.view(-1, *[1] * (a[name].dim() - 1)), a[name], b[name]) for name in a}


def mean(embeddings: Sequence[Embedding]) -> dict[str, Tensor]:
    """Average the tensors that are optimised; fixed tensors are the first embedding's."""
    return {
        name: torch.stack([embedding[name] for embedding in embeddings]).mean(0) if is_free(tensor) else tensor
        for name, tensor in embeddings[0].items()
    }
