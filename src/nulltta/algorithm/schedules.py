"""How many inner steps to take and how strongly to regularise at each denoising step (arXiv 2511.20889, sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from nulltta.config import NullTTAConfig
from nulltta.config.annealing import annealing_coefficient, inner_step_count, progress

__all__ = ["afforded", "annealing_coefficient", "inner_step_count", "inner_step_counts", "nearest", "progress",
           "regularisation"]  # fmt: skip


def inner_step_counts(config: NullTTAConfig) -> list[int]:
    """Return n_i of each of T denoising steps, without a budget; 0 outside `optimise_between`."""
    T, optimised = config.num_inference_steps, config.optimised_steps
    gamma = annealing_coefficient(config.annealing, T)
    return [inner_step_count(i, gamma, config.inner_steps) if i in optimised else 0 for i in range(T)]


def afforded(counts: Sequence[int], total: int) -> list[int]:
    """Cut the counts in proportion so that their sum is at most `total`; remainders go to the later ones."""
    whole = sum(counts)
    if total >= whole:
        return list(counts)
    ends = [sum(counts[: i + 1]) * total // whole for i in range(len(counts))]
    return [end - start for start, end in pairwise([0, *ends])]


def nearest(timesteps: Sequence[float], timestep: float) -> int:
    """Return the index of the nearest of several timesteps; a tie goes to the first, which is the noisier one."""
    return min(range(len(timesteps)), key=lambda i: abs(timesteps[i] - timestep))


def regularisation(index: int, gamma: float) -> float:
    """Return a_i = max(0, 1 − p_i), the share of the regularisers that is left at step i."""
    return max(0.0, 1.0 - progress(index, gamma))
