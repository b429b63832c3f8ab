"""A model evaluated one row at a time, so that its bits do not depend on what shares its batch.

Matrix products and convolutions of a batch may be summed in another order than those of one row: a batch's last bits
differ. Where they must not (exact replay on the CPU), this wrapper gives up the batch's speed for that. Rows are
copied, because a kernel's order may also depend on where in memory a row begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.types import Embedding, GuidedModel, NoiseStep


class RowByRow:
    """A `GuidedModel` that answers as `model` does, each row of `encode`, `predict` and `decode` on its own.

    Everything else, `pipeline` and `scheduler` included, is the model's.
    """

    def __init__(self, model: GuidedModel) -> None:
        self.model = model
        self.name = model.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        rows = [self.model.encode([prompt], [negative]) for prompt, negative in zip(prompts, negatives, strict=True)]
        cond, null = ({name: torch.cat([row[i][name] for row in rows]) for name in rows[0][i]} for i in (0, 1))
        return cond, null

    def schedule(self, num_inference_steps: int) -> Sequence[NoiseStep]:
        return self.model.schedule(num_inference_steps)

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        return self.model.initial_latents(batch, generator)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        rows = [{name: tensor[i : i + 1].clone() for name, tensor in embedding.items()} for i in range(len(x))]
        return torch.cat([self.model.predict(x[i : i + 1].clone(), step, row) for i, row in enumerate(rows)])

    def clean(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        return self.model.clean(x, prediction, step)

    def transition(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        return self.model.transition(x, prediction, step)

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        return torch.cat([self.model.decode(x0[i : i + 1].clone(), detail) for i in range(len(x0))])


def row_by_row(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A denoiser's forward, split into its rows and joined again: arguments of as many rows as the first are split."""

    def split(*args: Any, **kwargs: Any) -> tuple[Tensor]:
        count = len(args[0] if args else kwargs["hidden_states"])
        kwargs["return_dict"] = False
        rows = [forward(*_row(args, i, count), **_row(kwargs, i, count))[0] for i in range(count)]
        return (torch.cat(rows),)

    return split


def _row(value: Any, index: int, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[index : index + 1].clone() if value.dim() > 0 and len(value) == count else value
    if isinstance(value, dict):
        return {name: _row(inner, index, count) for name, inner in value.items()}
    return tuple(_row(inner, index, count) for inner in value) if isinstance(value, tuple) else value
