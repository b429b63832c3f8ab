"""How many denoiser evaluations were really made: equal cost is measured, not assumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nulltta.contracts import Embedding, GuidedModel, NoiseStep


@dataclass
class Evaluations:
    """Rows of one branch that went through the denoiser.

    Attributes:
        forward: each evaluation; one that is repeated in a backward pass (checkpointing) counts again.
        backward: those that a gradient went back through.
    """

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """The cost: a forward pass 1, a forward and a backward pass 2."""
        return self.forward + self.backward


@contextmanager
def counted(model: GuidedModel) -> Iterator[Evaluations]:
    """Count what the model's denoiser is asked for inside the block."""
    found, predict = Evaluations(), model.predict

    def back(gradient: Tensor) -> None:
        found.backward += len(gradient)

    def watched(x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        found.forward += len(x)
        prediction = predict(x, step, embedding)
        if prediction.requires_grad:
            prediction.register_hook(back)  # type: ignore[no-untyped-call]
        return prediction

    patched: Any = model
    patched.predict = watched
    try:
        yield found
    finally:
        del patched.predict
