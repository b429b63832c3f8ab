"""How many denoiser evaluations a run takes, and how a budget cuts its inner steps in proportion."""

from __future__ import annotations

from collections.abc import Sequence

from nulltta.algorithm import schedules
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.trust_region import PROJECTIONS
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue


def planned_for(problem: Problem) -> list[int]:
    """Return n_i of a run of `null_tta`, as `planned` does.

    Raises:
        InvalidValue: as there.
    """
    crossed = problem.model.crossed(problem.null)
    return planned(problem.config, started=problem.start is not None, crossed=crossed)


def planned(config: NullTTAConfig, *, started: bool = False, crossed: bool = False) -> list[int]:
    """Return n_i, the inner steps of each denoising step, within `optimise_between` and the budget.

    Candidates and references take evaluations whether or not the null text is optimised. What the budget leaves is
    spent on inner steps in proportion to n_i.

    Args:
        config: the settings.
        started: whether φ' starts from a learnt null text, so that it differs from φ at every denoising step.
        crossed: as for `NullTTAConfig.branches`.

    Raises:
        InvalidValue: if the budget does not even cover the candidates.
    """
    counts = schedules.inner_step_counts(config)
    if not config.budget:
        return counts

    def cost(total: int) -> int:
        cut = schedules.afforded(counts, total)
        return of_inner_step(config, crossed=crossed) * sum(cut) + _without_gradient(config, cut, started, crossed)

    if config.budget < cost(0):
        raise InvalidValue(
            f"of {config.budget} denoiser evaluations does not cover {config.num_particles} candidates at "
            f"{len(counts)} denoising steps: give at least {cost(0)}, draw fewer candidates (num_particles) or take "
            "fewer steps (num_inference_steps)",
            "budget",
        )
    affordable = max(total for total in range(sum(counts) + 1) if cost(total) <= config.budget)
    return schedules.afforded(counts, affordable)


def evaluations(config: NullTTAConfig, *, started: bool = False, crossed: bool = False) -> tuple[int, int]:
    """Return the denoiser branches per prompt with gradient and without.

    For zeroth order, and where φ' conditions more than one branch, the first number counts inner steps, each of
    `of_inner_step` evaluations. Under a `kl_target` the second number counts as many projections as there may be;
    usually there are fewer. `started` and `crossed` are as for `planned`.
    """
    counts = planned(config, started=started, crossed=crossed)
    return sum(counts), _without_gradient(config, counts, started, crossed)


def spent(config: NullTTAConfig, *, started: bool = False, crossed: bool = False) -> int:
    """Return the evaluations per prompt as a budget counts them; `started` and `crossed` are as for `planned`."""
    inner, others = evaluations(config, started=started, crossed=crossed)
    return of_inner_step(config, crossed=crossed) * inner + others


def by_step(config: NullTTAConfig) -> list[int]:
    """Return the evaluations per prompt of each denoising step without references, to tell how far a run is."""
    whole, _ = config.branches()
    return [of_inner_step(config) * inner + whole * config.num_particles for inner in planned(config)]


def of_inner_step(config: NullTTAConfig, *, crossed: bool = False) -> int:
    """Return the evaluations of one inner step: each branch of φ' forward and backward, or once per point."""
    _, moved = config.branches(crossed=crossed)
    if config.gradient != "zeroth-order":
        return 2 * moved
    return moved * (config.zeroth_order_samples + (config.zeroth_order_directions != "cma"))  # J at φ' itself


def _without_gradient(config: NullTTAConfig, counts: Sequence[int], started: bool, crossed: bool) -> int:
    """Count the branches of K candidates at T steps, ε(x_t, φ) once φ' has moved, and ε(x_t, φ') where it moves.

    Where φ' has moved, a `kl_target` may take `PROJECTIONS` more.
    """
    optimised = [i for i, count in enumerate(counts) if count]
    references = len(counts) if started else len(counts) - optimised[0] if optimised else 0
    projections = 0 if config.kl_target is None else PROJECTIONS * references
    whole, moved = config.branches(crossed=crossed)
    return whole * config.num_particles * len(counts) + moved * (references + len(optimised) + projections)
