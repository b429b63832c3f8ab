"""Counting the denoiser evaluations that a method really makes, so that equal cost is measured and not assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nulltta.contracts import Embedding, GuidedModel, NoiseStep

Predict = Callable[[Tensor, NoiseStep, Embedding], Tensor]


@dataclass
class Evaluations:
    """Rows of one branch that went through the denoiser.

    Attributes:
        forward: the number of evaluations; one that a backward pass repeats (checkpointing) counts again.
        backward: the number of evaluations that a gradient went back through.
    """

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """The cost: 1 for a forward pass, 2 for a forward and a backward pass."""
        return self.forward + self.backward


@contextmanager
def counted(model: GuidedModel) -> Iterator[Evaluations]:
    """Count the evaluations of the model's denoiser inside the block, without those of the model's first use."""
    _ = model.latent_shape  # whatever a model examines in its pipeline before it is first used, it examines here
    found = Evaluations()

    def count_backward(gradient: Tensor) -> None:
        found.backward += len(gradient)

    def watched(predict: Predict) -> Predict:
        def counting(x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
            found.forward += len(x)
            prediction = predict(x, step, embedding)
            if prediction.requires_grad:
                prediction.register_hook(count_backward)  # type: ignore[no-untyped-call]
            return prediction

        return counting

    patched: Any = model
    names = [name for name in ("predict", "predict_together") if hasattr(model, name)]
    for name in names:
        setattr(patched, name, watched(getattr(patched, name)))
    try:
        yield found
    finally:
        for name in names:
            delattr(patched, name)
