"""Null-TTA with one null text for all denoising steps, to see whether it matters that each step has its own."""

from __future__ import annotations

from dataclasses import replace

from nulltta.algorithm.budget import planned_for
from nulltta.algorithm.embeddings import mean
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta
from nulltta.contracts import Stream
from nulltta.errors import InvalidValue


def shared_null(problem: Problem) -> Stream:
    """Learn φ'_1, ..., φ'_T by Null-TTA, then sample again under their mean, frozen, with K candidates per step.

    The mean is that of the denoising steps at which φ' is optimised: before them it is φ, and including it would
    dilute what was learnt. The steps of both passes are streamed, 2T of them; the images are the second pass's.

    Cost per prompt: that of `null_tta`, to which a budget applies, and 2KT + T denoiser branches without gradient.

    Raises:
        InvalidValue: if there is a `kl_target`, which each step's own null text may meet and their mean need not.
    """
    if problem.config.kl_target is not None:
        raise InvalidValue(
            "bounds each step's own null text, and this method has one for all: leave it out", "kl_target"
        )
    learnt = (yield from null_tta(problem)).nulls
    optimised = [null for null, n in zip(learnt, planned_for(problem), strict=True) if n]
    frozen = replace(problem.config, inner_steps=(0, 0), budget=0, noise_tilt=0.0)
    shared = mean(optimised or learnt)
    return (yield from null_tta(replace(problem, start=lambda _: shared, config=frozen)))
