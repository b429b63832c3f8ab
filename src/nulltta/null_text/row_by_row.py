"""A model's rows evaluated apart, so that their bits do not depend on what shares their batch.

Matrix products and convolutions of a batch may be summed in another order than those of one row: a batch's last bits
differ. They depend on the batch's size and the row's place in it, not on what the other rows hold: a row comes out
bit for bit as the same row of a batch of as many copies of it. `RowByRow` makes every batch one row, giving up the
batch's speed. Rows are copied, because a kernel's order may also depend on where in memory a row begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nulltta.contracts import Embedding, ModelWrapper, NoiseStep

BatchPosition: TypeAlias = tuple[int, int]
"""The size of a batch, and a row of it."""


class RowByRow(ModelWrapper):
    """A model that evaluates each row of `encode`, `predict` and `decode` on its own, and else answers as `model`."""

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        rows = [self.model.encode([prompt], [negative]) for prompt, negative in zip(prompts, negatives, strict=True)]
        cond, null = ({name: torch.cat([row[i][name] for row in rows]) for name in rows[0][i]} for i in (0, 1))
        return cond, null

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        rows = [{name: tensor[i : i + 1].clone() for name, tensor in embedding.items()} for i in range(len(x))]
        return torch.cat([self.model.predict(x[i : i + 1].clone(), step, row) for i, row in enumerate(rows)])

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        return torch.cat([self.model.decode(x0[i : i + 1].clone(), detail) for i in range(len(x0))])


def in_batch_of_copies(place: BatchPosition, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
    """`function` of arguments of one row, (1, ...) -> (1, ...), evaluated at a place of a batch of its copies."""
    size, row = place
    answer: Tensor = function(*_copies(args, size), **_copies(kwargs, size))
    return answer[row : row + 1]


def in_batch_layout(forward: Callable[..., Any], place: Callable[[int], BatchPosition]) -> Callable[..., Any]:
    """A denoiser's forward (or a decoder's), each of its rows evaluated at `place(row)`; rows are split off every
    argument of as many rows as the first."""

    def split(*args: Any, **kwargs: Any) -> tuple[Tensor]:
        count = len(args[0] if args else next(iter(kwargs.values())))
        kwargs["return_dict"] = False
        rows = [
            in_batch_of_copies(
                place(i), lambda *a, **k: forward(*a, **k)[0], *_row(args, i, count), **_row(kwargs, i, count)
            )
            for i in range(count)
        ]
        return (torch.cat(rows),)

    return split


def _row(value: Any, index: int, count: int) -> Any:
    """Row `index` of every tensor of `count` rows; other values as they are."""
    return _each(value, lambda rows: rows[index : index + 1] if _is_rows(rows, count) else rows)


def _copies(value: Any, size: int) -> Any:
    """`size` copies of every tensor of one row; other values as they are."""
    return _each(
        value,
        lambda row: (
            row
            if not _is_rows(row, 1)
            else row * size
            if isinstance(row, list)
            else row.repeat(size, *[1] * (row.dim() - 1))
        ),
    )


def _is_rows(value: Any, count: int) -> bool:
    return len(value) == count if isinstance(value, list) else value.dim() > 0 and len(value) == count


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return change(value)
    if isinstance(value, dict):
        return {name: _each(inner, change) for name, inner in value.items()}
    return tuple(_each(inner, change) for inner in value) if isinstance(value, tuple) else value
