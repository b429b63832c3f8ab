"""The inner loop: objective + gradient + Adam -> null text (Null-TTA, arXiv 2511.20889; METHOD step 2b)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nulltta.embedding import free, transform
from nulltta.gradients import GradientEstimator
from nulltta.objective import Terms
from nulltta.types import Embedding, NullTTAError


class Adam:
    """Ascent by Adam (arXiv 1412.6980, algorithm 1) on B stacked null texts, each with its own moments and clock.

    Adam is elementwise, so stacking prompts is exact; torch.optim.Adam has one clock for all of them, and could
    not skip one prompt's step. β = (0.9, 0.999), ε = 1e-8.
    """

    def __init__(self, null: Embedding, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.mean = transform(null, torch.zeros_like)  # m
        self.square = transform(null, torch.zeros_like)  # v
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


def ascend(
    objective: Callable[[Embedding], Terms],
    null: Embedding,
    *,
    steps: int,
    learning_rate: float,
    estimator: GradientEstimator,
    generators: Sequence[torch.Generator],
    active: Tensor,
    skip_nonfinite: bool,
) -> tuple[dict[str, Tensor], Tensor]:
    """n inner steps from φ' with a fresh Adam: the new φ' and the rewards (n, B) seen before each update.

    active: (B,) bool, the prompts whose φ' may still move.
    skip_nonfinite: leave a prompt's φ' alone where its objective is not finite, as the published release does,
        instead of failing.

    Raises:
        NullTTAError: the objective or its gradient is not finite.
    """
    null = dict(null)
    adam = Adam(free(null), learning_rate)
    rewards = []
    for _ in range(steps):
        terms, gradient = estimator(objective, null, generators)
        finite = torch.isfinite(terms.value).cpu()
        if not skip_nonfinite and not bool((finite & _finite(gradient)).all()):
            raise NullTTAError(
                "the objective or its gradient is not finite: run the model and the reward in float32 or bfloat16, "
                "or lower reward_weight or learning_rate"
            )
        rewards.append(torch.nan_to_num(terms.reward, nan=0.0).cpu())
        null |= adam.step(free(null), gradient, active & finite)
    return null, torch.stack(rewards) if rewards else torch.empty(0, _batch(null))


def _finite(gradient: Embedding) -> Tensor:
    return torch.stack([torch.isfinite(g).flatten(1).all(1).cpu() for g in gradient.values()]).all(0)


def _batch(null: Embedding) -> int:
    return len(next(iter(null.values())))
