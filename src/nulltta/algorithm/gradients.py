"""Estimators of the objective's gradient: (objective, null, generators) -> (terms, gradient)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import batch_size, free, take, transform
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import Terms
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel

ROWS = 8
"""The points, over all prompts, that go through the denoiser and the decoder at once without a gradient."""
LARGEST_SCALE, SCALE_STEP = 2.0**12, 2.0**4
"""The loss scale of a backward pass in float16: its first value, and by what it is divided after an overflow."""

Function: TypeAlias = Callable[[Embedding], Terms]
"""An objective: φ' of B prompts -> its terms, (B,) each."""


class GradientEstimator(Protocol):
    """A rule for the ascent direction of J at φ'; `generators`, one per prompt, feed estimators that draw."""

    def __call__(
        self, objective: Function, null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[Terms, dict[str, Tensor]]: ...


@runtime_checkable
class Divisible(Protocol):
    """An objective of B prompts that can be evaluated for some of them."""

    def at(self, rows: Tensor) -> Function:
        """Return the objective of the prompts with these numbers (N,), which may repeat."""
        ...


def of_rows(objective: Function, rows: Tensor, batch: int) -> Function:
    """Return the objective of some of its B prompts; itself if they are all of them."""
    return objective if len(rows) == batch else _at(objective, rows)


def _at(objective: Function, rows: Tensor) -> Function:
    assert isinstance(objective, Divisible), "an objective for some of its prompts needs `at`"
    return objective.at(rows)


def evaluate_around(objective: Function, null: Embedding, offsets: Embedding, memory: MicroBatch) -> Terms:
    """Evaluate J of each prompt at N points φ' + offsets, (B, N, ...): its terms, (B, N) each."""
    batch, points = next(iter(offsets.values())).shape[:2]
    owners = torch.arange(batch).repeat_interleave(points)

    def evaluate(rows: Tensor) -> Terms:
        moved = take(null, owners[rows])
        for name, offset in offsets.items():
            moved[name] = moved[name] + offset.flatten(0, 1)[rows]
        return _at(objective, owners[rows])(moved)

    parts = zip(*memory.map(evaluate, batch * points), strict=True)
    return Terms(*(torch.cat(part).view(batch, points) for part in parts))


def in_micro_batches(estimator: GradientEstimator, memory: MicroBatch) -> GradientEstimator:
    """Apply the estimator to as many prompts at once as fit into memory."""

    def estimate(
        objective: Function, null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[Terms, dict[str, Tensor]]:
        batch = batch_size(null)

        def estimate_rows(rows: Tensor) -> tuple[Terms, dict[str, Tensor]]:
            part = of_rows(objective, rows, batch)
            return estimator(part, take(null, rows), [generators[row] for row in rows.tolist()])

        terms, gradients = zip(*memory.map(estimate_rows, batch), strict=True)
        return Terms(*map(torch.cat, zip(*terms, strict=True))), {
            name: torch.cat([gradient[name] for gradient in gradients]) for name in gradients[0]
        }

    return estimate


def autograd(
    objective: Function,
    null: Embedding,
    generators: Sequence[torch.Generator] = (),  # noqa: ARG001 - exact: draws nothing
) -> tuple[Terms, dict[str, Tensor]]:
    """Compute ∇J by reverse mode, with respect to φ' only.

    The prompts' objectives are independent, so one backward pass serves all of them.
    """
    return _reverse(objective, null, 1.0)


def scaled_autograd(
    objective: Function,
    null: Embedding,
    generators: Sequence[torch.Generator] = (),  # noqa: ARG001 - exact: draws nothing
) -> tuple[Terms, dict[str, Tensor]]:
    """Compute ∇J through float16 networks, whose backward pass would round small gradients to zero, as ∇(S·J)/S.

    Each prompt has its own scale S, which is lowered while its gradient overflows (loss scaling: Micikevicius et al.,
    arXiv 1710.03740), so that a prompt's gradient does not depend on its batch. A gradient that overflows even
    unscaled is returned as it is, not finite.
    """
    scale = torch.full((batch_size(null),), LARGEST_SCALE, dtype=torch.float32)
    while True:
        terms, gradient = _reverse(objective, null, scale)
        overflown = ~finite_rows(gradient) & (scale > 1)
        if not bool(overflown.any()):
            return terms, gradient
        scale = torch.where(overflown, scale / SCALE_STEP, scale)


def _reverse(objective: Function, null: Embedding, scale: Tensor | float) -> tuple[Terms, dict[str, Tensor]]:
    """Compute J, and its gradient as that of scale·J."""
    with torch.enable_grad():
        leaf = transform(free(null), lambda tensor: tensor.detach().requires_grad_())
        terms = objective({**null, **leaf})
        factor = torch.as_tensor(scale).to(terms.value)
        gradient = torch.autograd.grad((factor * terms.value).sum(), list(leaf.values()))
    unscaled = [g / factor.view(-1, *[1] * (g.dim() - 1)) if factor.dim() else g for g in gradient]
    return Terms(*(part.detach() for part in terms)), dict(zip(leaf, unscaled, strict=True))


def finite_rows(gradient: Embedding) -> Tensor:
    """Return, as (B,) bool on the CPU, whether all of a prompt's gradient is finite."""
    return torch.stack([torch.isfinite(g).flatten(1).all(1).cpu() for g in gradient.values()]).all(0)


def white_directions(null: Embedding, generators: Sequence[torch.Generator], count: int) -> dict[str, Tensor]:
    """Draw v ~ N(0, I): `count` directions per prompt, (B, count, ...) per floating-point tensor, each prompt's from
    its own generator."""
    drawn: dict[str, Tensor] = {}
    for name, value in free(null).items():
        shape = (count, *value.shape[1:])
        drawn[name] = torch.stack([torch.randn(shape, generator=g, dtype=torch.float32) for g in generators]).to(value)
    return drawn


@dataclass(frozen=True, slots=True)
class ZerothOrder:
    """Forward differences of the whole objective, without any gradient: ĝ = 1/(qμ)·Σ [J(φ'+μv) − J(φ')]·v.

    It takes q + 1 evaluations of J. With v ~ N(0, I) its expectation is the gradient of J smoothed over distances of
    μ (Nesterov and Spokoiny, 2017).

    Attributes:
        samples: q, the number of directions v.
        radius: μ.
        memory: how many points go through the networks at once.
    """

    samples: int
    radius: float
    memory: MicroBatch = field(default_factory=lambda: MicroBatch(ROWS), compare=False)

    @torch.no_grad()
    def __call__(
        self, objective: Function, null: Embedding, generators: Sequence[torch.Generator]
    ) -> tuple[Terms, dict[str, Tensor]]:
        directions = white_directions(null, generators, self.samples)  # (B, q, ...)
        offsets = transform(directions, lambda v: torch.cat([torch.zeros_like(v[:, :1]), self.radius * v], dim=1))
        terms = evaluate_around(objective, null, offsets, self.memory)  # (B, 1 + q): φ' itself comes first
        scale = (terms.value[:, 1:] - terms.value[:, :1]) / (self.samples * self.radius)
        gradient = transform(free(null), torch.zeros_like)
        for name, v in directions.items():
            gradient[name] = torch.einsum("bq,bq...->b...", scale.to(v), v)
        return Terms(*(part[:, 0] for part in terms)), gradient


ESTIMATORS: Mapping[str, Callable[[NullTTAConfig, GuidedModel], GradientEstimator]] = {
    "autograd": lambda _, model: scaled_autograd if model.dtype == torch.float16 else autograd,
    "zeroth-order": lambda config, _: ZerothOrder(config.zeroth_order_samples, config.zeroth_order_radius),
}
"""The gradient estimators by the name that `NullTTAConfig.gradient` gives them."""
