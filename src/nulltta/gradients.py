"""Estimators of the objective's gradient: (objective, null, generators) -> (terms, gradient)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from nulltta.embedding import transform
from nulltta.objective import Terms
from nulltta.types import Embedding


class GradientEstimator(Protocol):
    """Ascent direction of J at φ'; `generators`, one a prompt, feed estimators that draw directions."""

    def __call__(
        self, objective: Callable[[Embedding], Terms], null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[Terms, dict[str, Tensor]]: ...


def autograd(
    objective: Callable[[Embedding], Terms],
    null: Embedding,
    generators: Sequence[torch.Generator] = (),  # noqa: ARG001 - exact: draws nothing
) -> tuple[Terms, dict[str, Tensor]]:
    """∇J by reverse mode, with respect to φ' only. The prompts' objectives are independent: one backward for all."""
    with torch.enable_grad():
        leaf = transform(null, lambda tensor: tensor.detach().requires_grad_())
        terms = objective(leaf)
        gradient = torch.autograd.grad(terms.value.sum(), list(leaf.values()))
    return Terms(*(part.detach() for part in terms)), dict(zip(leaf, gradient, strict=True))


ESTIMATORS: Mapping[str, GradientEstimator] = {"autograd": autograd}
