"""The inner loop: n steps of an optimiser move each prompt's null text φ' uphill (docs/method.md, step 2b)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import batch_size, free, transform
from nulltta.algorithm.gradients import Function, GradientEstimator, finite_rows
from nulltta.contracts import Embedding
from nulltta.errors import InvalidValue


class Ascent(Protocol):
    """An optimiser of the null texts of N prompts with its state, of which no prompt sees another's."""

    def step(
        self, objective: Function, null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Take one inner step.

        Args:
            objective: J of the N prompts.
            null: φ', first dimension N.
            generators: one per prompt.

        Returns:
            The new φ', and the rewards (N,) seen before the step.

        Raises:
            InvalidValue: if the objective is not finite.
        """
        ...


StartAscent: TypeAlias = Callable[[Embedding], Ascent]
"""Creates an optimiser without history for null texts φ'."""


@torch.no_grad()
def ascend(
    objective: Function,
    null: Embedding,
    start: StartAscent,
    *,
    steps: int,
    generators: Sequence[torch.Generator],
) -> tuple[dict[str, Tensor], Tensor]:
    """Move φ' by n inner steps of a fresh optimiser.

    Args:
        objective: J of B prompts.
        null: φ', first dimension B.
        start: creates the optimiser.
        steps: n.
        generators: one per prompt.

    Returns:
        The new φ', and the rewards (n, B) seen before each step.

    Raises:
        InvalidValue: if the objective or its gradient is not finite.
    """
    moved, ascent, rewards = dict(null), start(null), torch.empty((steps, len(generators)), dtype=torch.float32)
    for seen in rewards:
        moved, before = ascent.step(objective, moved, generators)
        seen[:] = before.float().cpu()
    return moved, rewards


class Adam:
    """Ascent by Adam (arXiv 1412.6980, algorithm 1) on B stacked null texts, each with its own moments and clock.

    Adam is elementwise, so that stacking prompts is exact. torch.optim.Adam has one clock for all of them and could
    not leave out a step of one prompt. β = (0.9, 0.999), ε = 1e-8.
    """

    def __init__(self, null: Embedding, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.mean = transform(free(null), torch.zeros_like)  # m
        self.square = transform(free(null), torch.zeros_like)  # v
        self.clock = torch.zeros(batch_size(null), dtype=torch.float64)  # steps taken by each prompt

    def step(self, null: Embedding, gradient: Embedding, active: Tensor) -> dict[str, Tensor]:
        """Move φ' one step uphill; prompts where `active` (B,) is false keep φ', moments and clock."""
        beta1, beta2 = 0.9, 0.999
        self.clock += active.to(self.clock)
        clock = self.clock.clamp(min=1)
        updated = dict(null)
        for name, value in free(null).items():
            shape = (-1, *[1] * (value.dim() - 1))
            on = active.view(shape).to(value.device)
            g = torch.where(on, gradient[name], torch.zeros_like(value))
            m, v = self.mean[name], self.square[name]
            m = self.mean[name] = torch.where(on, beta1 * m + (1 - beta1) * g, m)
            v = self.square[name] = torch.where(on, beta2 * v + (1 - beta2) * g * g, v)
            rate = (self.learning_rate / (1 - beta1**clock)).view(shape).to(value)
            root = (1 - beta2**clock).sqrt().view(shape).to(value)
            updated[name] = torch.where(on, value + rate * m / (v.sqrt() / root + 1e-8), value)
        return updated


class GradientAscent:
    """Adam along an estimated gradient.

    Args:
        null: φ', where the ascent starts.
        estimator: estimates the gradient.
        learning_rate: Adam's.
        skip_nonfinite: leave a prompt's φ' alone where its objective is not finite, as the published release does,
            instead of failing. A gradient that is not finite fails in either case: it would spoil φ' for good.
    """

    def __init__(
        self, null: Embedding, estimator: GradientEstimator, learning_rate: float, *, skip_nonfinite: bool = False
    ) -> None:
        self.adam, self.estimator, self.skip_nonfinite = Adam(null, learning_rate), estimator, skip_nonfinite

    def step(
        self, objective: Function, null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], Tensor]:
        terms, gradient = self.estimator(objective, null, generators)
        finite = torch.isfinite(terms.value).cpu()
        require_finite(finite_rows(gradient) if self.skip_nonfinite else finite & finite_rows(gradient))
        return self.adam.step(null, gradient, finite), torch.nan_to_num(terms.reward, nan=0.0)


def require_finite(finite: Tensor) -> None:
    """Check that all of `finite`, a bool tensor, is true.

    Raises:
        InvalidValue: if it is not.
    """
    if not bool(finite.all()):
        raise InvalidValue(
            "the objective or its gradient is not finite: run the model and the reward in float32 or bfloat16, or "
            "lower the reward's weight (reward_weight) or the learning rate (learning_rate)"
        )
