"""The inner loop: objective + gradient + Adam -> null text (Null-TTA, arXiv 2511.20889; METHOD step 2b)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import free, take, transform, where
from nulltta.algorithm.gradients import GradientEstimator, finite_rows, of_rows
from nulltta.algorithm.objective import Terms
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding
from nulltta.errors import InvalidValue

NOT_FINITE = (
    "the objective or its gradient is not finite: run the model and the reward in float32 or bfloat16, or lower "
    "reward_weight or learning_rate"
)


class Adam:
    """Ascent by Adam (arXiv 1412.6980, algorithm 1) on B stacked null texts, each with its own moments and clock.

    Adam is elementwise, so stacking prompts is exact; torch.optim.Adam has one clock for all of them, and could
    not skip one prompt's step. β = (0.9, 0.999), ε = 1e-8.
    """

    def __init__(self, null: Embedding, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.mean = transform(free(null), torch.zeros_like)  # m
        self.square = transform(free(null), torch.zeros_like)  # v
        self.clock = torch.zeros(_batch(null), dtype=torch.float64)  # steps taken, a prompt

    def step(self, null: Embedding, gradient: Embedding, active: Tensor) -> dict[str, Tensor]:
        """φ' one step uphill; prompts where `active` (B,) is false keep φ', moments and clock as they are."""
        beta1, beta2 = 0.9, 0.999
        self.clock += active.to(self.clock)
        clock = self.clock.clamp(min=1)
        updated = {}
        for name, value in null.items():
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


class Patience:
    """Which prompts' ascent goes on: those whose objective was best at one of the last `limit` inner steps.

    The best φ' of each prompt is kept, for the prompt to end with if it is stopped. A limit of 0 stops none.
    """

    def __init__(self, limit: int, null: Embedding) -> None:
        self.limit = limit
        self.best = torch.full((_batch(null),), -torch.inf)
        self.waited = torch.zeros(_batch(null), dtype=torch.long)
        self.null = dict(null)

    def stops(self, null: Embedding, value: Tensor) -> Tensor:
        """Given φ' and its J (B,), −inf where it was not evaluated: the prompts to stop now, (B,) bool."""
        if self.limit == 0:
            return torch.zeros(len(value), dtype=torch.bool)
        better = value > self.best
        self.best = torch.where(better, value, self.best)
        self.waited = torch.where(better, 0, self.waited + 1)
        self.null = where(better.to(next(iter(null.values())).device), null, self.null)
        return self.waited >= self.limit


def ascend(
    objective: Callable[[Embedding], Terms],
    null: Embedding,
    *,
    steps: int,
    adam: Adam,
    estimator: GradientEstimator,
    generators: Sequence[torch.Generator],
    active: Tensor,
    skip_nonfinite: bool = False,
    patience: int = 0,
) -> tuple[dict[str, Tensor], Tensor]:
    """n inner steps from φ': the new φ' and the rewards (n, B) seen before each update, NaN where there was none.

    active: (B,) bool, the prompts whose φ' may still move; the others cost nothing.
    skip_nonfinite: leave a prompt's φ' alone where its objective is not finite, as the published release does,
        instead of failing.
    patience: stop a prompt, at its best φ', after that many inner steps without a better objective; 0 for never.

    Raises:
        NullTTAError: the objective or its gradient is not finite.
    """
    null, moving, waiting = dict(null), active.clone(), Patience(patience, null)
    rewards = []
    for _ in range(steps):
        if not bool(moving.any()):
            break
        rows = moving.nonzero().flatten()
        terms, gradient = estimator(
            of_rows(objective, rows, len(moving)), take(null, rows), [generators[row] for row in rows.tolist()]
        )
        finite = _spread(torch.isfinite(terms.value), rows, False, moving)
        if not skip_nonfinite and not bool((finite[rows] & finite_rows(gradient)).all()):
            raise InvalidValue(NOT_FINITE)
        rewards.append(_spread(torch.nan_to_num(terms.reward, nan=0.0), rows, torch.nan, moving))
        stopped = moving & waiting.stops(null, _spread(terms.value, rows, -torch.inf, moving))
        moving = moving & ~stopped
        if bool(stopped.any()):
            null = where(stopped.to(next(iter(null.values())).device), waiting.null, null)
        full = {name: torch.zeros_like(null[name]).index_copy(0, rows.to(g.device), g) for name, g in gradient.items()}
        null |= adam.step(free(null), full, moving & finite)
    return null, torch.stack(rewards) if rewards else torch.empty(0, len(active))


class InnerLoop(Protocol):
    """n inner steps from φ' at one denoising step: the new φ' and the rewards (n, B), as `ascend` does."""

    def __call__(
        self,
        objective: Callable[[Embedding], Terms],
        null: Embedding,
        *,
        steps: int,
        generators: Sequence[torch.Generator],
        active: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]: ...


class GradientAscent:
    """`ascend` under a run's settings, at each denoising step by a fresh Adam."""

    def __init__(self, config: NullTTAConfig, estimator: GradientEstimator) -> None:
        self.config, self.estimator = config, estimator

    def __call__(
        self,
        objective: Callable[[Embedding], Terms],
        null: Embedding,
        *,
        steps: int,
        generators: Sequence[torch.Generator],
        active: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        cfg = self.config
        return ascend(
            objective, null, steps=steps, adam=Adam(null, cfg.learning_rate), estimator=self.estimator,
            generators=generators, active=active, skip_nonfinite=cfg.conventions == "release", patience=cfg.patience,
        )  # fmt: skip


def _spread(values: Tensor, rows: Tensor, elsewhere: float | bool, like: Tensor) -> Tensor:
    """(N,) of some rows -> (B,) on the CPU."""
    found = torch.full((len(like),), elsewhere, dtype=values.dtype)
    found[rows] = values.cpu()
    return found


def _batch(null: Embedding) -> int:
    return len(next(iter(null.values())))
