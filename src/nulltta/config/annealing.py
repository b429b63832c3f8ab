"""The progress of a run, by which it anneals its regularisers and takes more inner steps (arXiv 2511.20889, sec. 4)."""

from __future__ import annotations

_PUBLISHED_GAMMA, _PUBLISHED_STEPS = 0.008, 100


def annealing_coefficient(annealing: float | str, num_inference_steps: int) -> float:
    """Return γ; for "auto", the γ whose progress reaches 1 at the same fraction of sampling as 0.008 in 100 steps."""
    if annealing == "auto":
        return float((1 + _PUBLISHED_GAMMA) ** (_PUBLISHED_STEPS / num_inference_steps) - 1)
    return float(annealing)


def progress(index: int, gamma: float) -> float:
    """Return p_i = min(1, (1+γ)^i − 1), in [0, 1]."""
    return min(1.0, (1 + gamma) ** index - 1)


def inner_step_count(index: int, gamma: float, inner_steps: tuple[int, int]) -> int:
    """Return n_i = round(n_min + (n_max − n_min)·p_i)."""
    n_min, n_max = inner_steps
    return round(n_min + (n_max - n_min) * progress(index, gamma))
