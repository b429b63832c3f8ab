"""Keeping a run within its budget: fewer of the planned inner steps, in proportion."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from nulltta.algorithm import schedules
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue


def planned(config: NullTTAConfig) -> list[int]:
    """The inner steps of each denoising step: n_i, within `optimise_between` and a budget of evaluations.

    Candidates and references take evaluations whatever is optimised; an inner step takes two, forward and back, or
    without a gradient as many as it has points.
    What the budget leaves for inner steps is spent in proportion to n_i.

    Raises:
        NullTTAError: the budget does not even cover the candidates.
    """
    T = config.num_inference_steps
    gamma = schedules.annealing_coefficient(config.annealing, T)
    counts = schedules.inner_step_counts(T, gamma, config.inner_steps, config.optimise_between)
    if (budget := config.evaluations_budget) is None:
        return counts

    def cut(total: int) -> list[int]:
        return schedules.afforded(counts, total)

    def cost(total: int) -> int:
        return of_inner_step(config) * sum(cut(total)) + _without_gradient(config, cut(total))

    if budget < cost(0):
        raise InvalidValue(
            f"a budget of {budget} denoiser evaluations does not cover {config.num_particles} candidates at {T} "
            f"denoising steps: give at least {cost(0)}, or lower num_particles or num_inference_steps"
        )
    return cut(max(total for total in range(sum(counts) + 1) if cost(total) <= budget))


def evaluations(config: NullTTAConfig) -> tuple[int, int]:
    """Denoiser branches of one prompt, with gradient and without, unless patience, a guard or a clock ends it early."""
    counts = planned(config)
    return sum(counts), _without_gradient(config, counts)


def spent(config: NullTTAConfig) -> int:
    """All of them as a budget counts them."""
    inner, others = evaluations(config)
    return of_inner_step(config) * inner + others


def by_step(config: NullTTAConfig) -> list[int]:
    """What each denoising step of a prompt spends, but for the references: to tell how far a run is."""
    return [of_inner_step(config) * inner + 2 * config.num_particles for inner in planned(config)]


def of_inner_step(config: NullTTAConfig) -> int:
    """Evaluations: forward and back; J at φ' and at each φ' + μv_k; or J of a generation."""
    if config.gradient != "zeroth-order":
        return 2
    return config.zeroth_order_samples + (config.zeroth_order_directions != "cma")


def _without_gradient(config: NullTTAConfig, counts: Sequence[int]) -> int:
    """Both branches of K candidates at T steps; ε(x_t, φ) once φ' has moved, ε(x_t, φ') where it moves."""
    optimised = [i for i, count in enumerate(counts) if count]
    references = len(counts) - optimised[0] if optimised else 0
    return 2 * config.num_particles * len(counts) + references + len(optimised)


class Clock:
    """Cuts the inner steps to come so that a run ends in time, judging by the time of what it has done.

    The result then depends on the machine's speed; the trace says how many inner steps were taken.

    limit: seconds for the run; None for as long as it takes.
    plan: inner steps of each denoising step.
    """

    def __init__(self, limit: float | None, plan: Sequence[int], now: Callable[[], float] = time.perf_counter) -> None:
        self.limit, self.plan, self.now = limit, plan, now
        self.began = now()
        self.inner_seconds, self.inner_taken = 0.0, 0

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.now() - self.began

    def inner_steps(self, i: int) -> int:
        """How many inner steps denoising step i may take."""
        planned, ahead = self.plan[i], sum(self.plan[i:])
        if self.limit is None or not self.inner_taken or not ahead:
            return planned
        elapsed = self.elapsed()
        others = (elapsed - self.inner_seconds) / i * (len(self.plan) - i)  # what else each denoising step takes
        affordable = (self.limit - elapsed - others) / (self.inner_seconds / self.inner_taken)
        return max(0, min(planned, int(planned * affordable / ahead)))

    def took(self, steps: int, since: float) -> None:
        """Inner steps were taken, from `since`, as `elapsed` gave it, till now."""
        self.inner_taken, self.inner_seconds = self.inner_taken + steps, self.inner_seconds + self.elapsed() - since
