"""Estimators of the objective's gradient: (objective, null, generators) -> (terms, gradient)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from nulltta.algorithm.directions import DIRECTIONS, Directions
from nulltta.algorithm.embeddings import free, take, transform
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import Terms
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel

ROWS = 8
"""Prompts times directions that go through the denoiser and the decoder at once."""
LARGEST_SCALE, SCALE_STEP = 2.0**12, 2.0**4
"""Of the objective, before a backward pass in float16."""


class GradientEstimator(Protocol):
    """Ascent direction of J at φ'; `generators`, one a prompt, feed estimators that draw directions."""

    def __call__(
        self, objective: Callable[[Embedding], Terms], null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[Terms, dict[str, Tensor]]: ...


@runtime_checkable
class Divisible(Protocol):
    """An objective of B prompts that can also be had for some of them."""

    def at(self, rows: Tensor) -> Callable[[Embedding], Terms]:
        """The same objective for the prompts of these numbers (N,), which may repeat, of φ' with first dimension N."""
        ...


def of_rows(objective: Callable[[Embedding], Terms], rows: Tensor, batch: int) -> Callable[[Embedding], Terms]:
    """The objective of some of its B prompts; itself where they are all of them."""
    return objective if len(rows) == batch else _at(objective, rows)


def _at(objective: Callable[[Embedding], Terms], rows: Tensor) -> Callable[[Embedding], Terms]:
    assert isinstance(objective, Divisible), "an objective for some of its prompts needs `at`"
    return objective.at(rows)


def around(
    objective: Callable[[Embedding], Terms], null: Embedding, offsets: Embedding, memory: MicroBatch
) -> Terms:  # fmt: skip
    """J of each prompt at N points, φ' + offsets (B, N, ...): its terms, (B, N) each."""
    batch, points = next(iter(offsets.values())).shape[:2]
    owners = torch.arange(batch).repeat_interleave(points)

    def of(rows: Tensor) -> Terms:
        moved = take(null, owners[rows])
        for name, offset in offsets.items():
            moved[name] = moved[name] + offset.flatten(0, 1)[rows]
        return _at(objective, owners[rows])(moved)

    parts = zip(*memory.map(of, batch * points), strict=True)
    return Terms(*(torch.cat(part).view(batch, points) for part in parts))


def in_micro_batches(estimator: GradientEstimator, memory: MicroBatch) -> GradientEstimator:
    """The estimator, applied to as many prompts at once as fit into memory."""

    def estimate(
        objective: Callable[[Embedding], Terms], null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[Terms, dict[str, Tensor]]:
        batch = len(next(iter(null.values())))

        def of(rows: Tensor) -> tuple[Terms, dict[str, Tensor]]:
            part = of_rows(objective, rows, batch)
            return estimator(part, take(null, rows), [generators[row] for row in rows.tolist()])

        terms, gradients = zip(*memory.map(of, batch), strict=True)
        return Terms(*map(torch.cat, zip(*terms, strict=True))), {
            name: torch.cat([gradient[name] for gradient in gradients]) for name in gradients[0]
        }

    return estimate


def autograd(
    objective: Callable[[Embedding], Terms],
    null: Embedding,
    generators: Sequence[torch.Generator] = (),  # noqa: ARG001 - exact: draws nothing
) -> tuple[Terms, dict[str, Tensor]]:
    """∇J by reverse mode, with respect to φ' only. The prompts' objectives are independent: one backward for all."""
    return _reverse(objective, null, 1.0)


def scaled_autograd(
    objective: Callable[[Embedding], Terms],
    null: Embedding,
    generators: Sequence[torch.Generator] = (),  # noqa: ARG001 - exact: draws nothing
) -> tuple[Terms, dict[str, Tensor]]:
    """∇J through float16 networks, whose backward pass would round small gradients to zero: of S·J, divided by S.

    Each prompt has its own S, halved several times over where its gradient overflows (loss scaling: Micikevicius et
    al., arXiv 1710.03740), so that a prompt's gradient does not depend on its batch. What overflows even unscaled
    comes back as it is, not finite.
    """
    scale = torch.full((len(next(iter(null.values()))),), LARGEST_SCALE)
    while True:
        terms, gradient = _reverse(objective, null, scale)
        overflown = ~finite_rows(gradient) & (scale > 1)
        if not bool(overflown.any()):
            return terms, gradient
        scale = torch.where(overflown, scale / SCALE_STEP, scale)


def _reverse(
    objective: Callable[[Embedding], Terms], null: Embedding, scale: Tensor | float
) -> tuple[Terms, dict[str, Tensor]]:
    """J and its gradient, computed as that of scale·J."""
    with torch.enable_grad():
        leaf = transform(free(null), lambda tensor: tensor.detach().requires_grad_())
        terms = objective({**null, **leaf})
        factor = torch.as_tensor(scale).to(terms.value)
        gradient = torch.autograd.grad((factor * terms.value).sum(), list(leaf.values()))
    unscaled = [g / factor.view(-1, *[1] * (g.dim() - 1)) if factor.dim() else g for g in gradient]
    return Terms(*(part.detach() for part in terms)), dict(zip(leaf, unscaled, strict=True))


def finite_rows(gradient: Embedding) -> Tensor:
    """(B,) bool on the CPU: whether all of a prompt's gradient is finite."""
    return torch.stack([torch.isfinite(g).flatten(1).all(1).cpu() for g in gradient.values()]).all(0)


@dataclass(frozen=True, slots=True)
class ZerothOrder:
    """ĝ = 1/(Kμ)·Σ_k [J(φ'+μv_k) − J(φ')]·v_k: forward differences of the whole objective, without any gradient.

    K + 1 evaluations of J. With v_k ~ N(0, I) its expectation is the gradient of J smoothed over distances μ
    (Nesterov and Spokoiny, 2017); with pairs ±v it is the central difference.

    Attributes:
        samples: K.
        radius: μ.
        directions: draws v.
    """

    samples: int
    radius: float
    directions: Directions
    memory: MicroBatch = field(default_factory=lambda: MicroBatch(ROWS), compare=False)

    @torch.no_grad()
    def __call__(
        self, objective: Callable[[Embedding], Terms], null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[Terms, dict[str, Tensor]]:
        drawn = self.directions(null, generators, self.samples)  # (B, K, ...), of the floating-point tensors
        offsets = transform(drawn, lambda v: torch.cat([torch.zeros_like(v[:, :1]), self.radius * v], dim=1))
        terms = around(objective, null, offsets, self.memory)  # (B, 1 + K): φ' itself comes first
        scale = (terms.value[:, 1:] - terms.value[:, :1]) / (self.samples * self.radius)
        gradient = transform(null, torch.zeros_like)
        for name, v in drawn.items():
            gradient[name] = torch.einsum("bk,bk...->b...", scale.to(v), v)
        return Terms(*(part[:, 0] for part in terms)), gradient


def zeroth_order(config: NullTTAConfig, model: GuidedModel) -> ZerothOrder:
    """The estimator of the configuration's K, μ and directions."""
    directions = DIRECTIONS[config.zeroth_order_directions](model)
    return ZerothOrder(config.zeroth_order_samples, config.zeroth_order_radius, directions)


ESTIMATORS: Mapping[str, Callable[[NullTTAConfig, GuidedModel], GradientEstimator]] = {
    "autograd": lambda config, model: scaled_autograd if model.dtype == torch.float16 else autograd,  # noqa: ARG005
    "zeroth-order": zeroth_order,
}
