"""Null-TTA with one null text for all denoising steps, to see whether it matters that each step has its own."""

from __future__ import annotations

from dataclasses import replace

from nulltta.algorithm.embeddings import mean
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta
from nulltta.contracts import Stream
from nulltta.errors import InvalidValue


def shared_null(problem: Problem) -> Stream:
    """Learn φ'_1, ..., φ'_T by Null-TTA, then sample again under their mean, frozen, with K candidates per step.

    A stock pipeline that takes one negative embedding is given the same mean (`NullText.mean`). The steps of both
    passes are streamed, 2T of them; the images are the second pass's.

    Cost per prompt: that of `null_tta`, to which a budget applies, and 2KT + T denoiser branches without gradient.

    Raises:
        InvalidValue: if there is a `kl_target`, which each step's own null text may meet and their mean need not.
    """
    if problem.config.kl_target is not None:
        raise InvalidValue(
            "bounds each step's own null text, and this method has one for all: leave it out", "kl_target"
        )
    learnt = (yield from null_tta(problem)).nulls
    frozen = replace(problem.config, inner_steps=(0, 0))
    return (yield from null_tta(replace(problem, start=mean(learnt), config=frozen)))
