"""Objectives that several tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nulltta import NullTTAConfig
from nulltta.algorithm.objective import Objective, Terms
from nulltta.contracts import Embedding
from nulltta.rewards import load
from nulltta.testing import Gaussian, nearness

MOVED = {"mean": torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.5, 0.2]])}


def gaussian_objective(**settings: Any) -> Objective:
    """Return the objective of two prompts at the fourth of ten steps of the closed-form model."""
    model = Gaussian()
    cond, null = model.encode(["red", "green"], ["", ""])
    step = model.schedule(10)[3]
    x = torch.randn((2, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    config = NullTTAConfig(guidance_scale=3.0, **settings)
    return Objective(
        model, load(nearness), ["red", "green"], config, step, x,
        model.predict(x, step, cond), model.predict(x, step, null), null, anneal=0.7,
    )  # fmt: skip


class Rowwise:
    """An objective that is the same function of every prompt; it counts the rows of its evaluations."""

    def __init__(self, function: Callable[[Embedding], Terms]) -> None:
        self.function, self.rows = function, list[int]()

    def __call__(self, null: Embedding) -> Terms:
        self.rows.append(len(null["tokens"]))
        return self.function(null)

    def at(self, rows: Tensor) -> Rowwise:
        return self
