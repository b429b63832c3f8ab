"""The weight of the consistency term at each step, from the training schedule that lies one step below it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nulltta.models.steps import FLOWS, KINDS, ObservedStep, share


class Ladder:
    """ᾱ of a training schedule, one training step below a level."""

    def __init__(self, scheduler: Any, trained: int) -> None:
        self.trained = trained
        table = getattr(scheduler, "alphas_cumprod", None)
        self.table = None if table is None or hasattr(scheduler, "precondition_outputs") else table.double().cpu()
        self.betas = getattr(scheduler, "betas", None)
        self.sigmas = None
        if self.table is None and hasattr(scheduler, "precondition_outputs"):
            own = copy.deepcopy(scheduler)
            own.set_timesteps(trained)
            self.sigmas = [float(sigma) for sigma in own.sigmas]

    def below(self, step: ObservedStep) -> tuple[float, float]:
        """(1 − α_t, ᾱ_{t−1}) with α_t = ᾱ_t/ᾱ_{t−1}."""
        if step.kind in FLOWS or (self.table is None and self.sigmas is None):
            sigma = step.noise / (step.signal + step.noise)
            lower = max(0.0, sigma - 1 / self.trained)
            below = share(1 - lower, lower)
            return 1 - step.alpha_bar / below, below
        if self.table is not None:
            t = round(step.timestep)
            exact = t == step.timestep and 0 <= t < len(self.table)
            if exact and abs(float(self.table[t]) - step.alpha_bar) < 1e-6:
                assert self.betas is not None
                return float(self.betas[t]), float(self.table[t - 1]) if t > 0 else 1.0
            below = _interpolated(self.table.tolist(), step.alpha_bar)
        else:
            assert self.sigmas is not None
            below = _interpolated([share(1, sigma) for sigma in reversed(self.sigmas)], step.alpha_bar)
        return 1 - step.alpha_bar / below, below


def _interpolated(falling: Sequence[float], value: float) -> float:
    """The value one index before the place, between whole indices, where a falling sequence has this value."""

    def at(place: float) -> float:
        if place < 0:
            return 1.0 + (falling[0] - 1.0) * (place + 1)
        low = min(int(place), len(falling) - 2)
        return falling[low] + (falling[low + 1] - falling[low]) * (place - low)

    above = next((i for i, each in enumerate(falling) if each <= value), len(falling) - 1)
    if above == 0:
        return min(1.0, at(-1.0 + 1e-9))
    high, low = falling[above - 1], falling[above]
    place = above - 1 + (min(1.0, (high - value) / (high - low)) if high > low else 0.0)
    return at(place - 1)


def weighed(step: ObservedStep, ladder: Ladder) -> ObservedStep:
    """The step with the paper's (1−α_t)/(2α_t(1−ᾱ_t)), for the quantity that is predicted.

    ε̂ = (x − α·x̂0)/σ gives ‖Δε‖ = (α/σ)·|∂x̂0/∂v|·‖Δv‖, and α²/α_t = ᾱ_{t−1}·(α² + σ²) is finite at α = 0.
    """
    beta, below = ladder.below(step)
    out = KINDS[step.kind][2](step)
    power = step.signal**2 + step.noise**2
    power = 1.0 if abs(power - 1) < 1e-6 else power
    weight = beta * below * (out**2 / step.noise**2 * power) / (2 * (1 - step.alpha_bar))
    return replace(step, consistency=weight)
