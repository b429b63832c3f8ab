"""Null-TTA with the prompt's embedding c optimised instead of the null text, to see whether the null text matters."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta
from nulltta.contracts import ModelWrapper, Stream
from nulltta.errors import InvalidValue


def prompt_embedding(problem: Problem) -> Stream:
    """Run Null-TTA with c and φ exchanged: c' is optimised, and ε(x_t, φ) is evaluated once per step.

    The consistency term is the same ‖ε̃(c') − ε̃(c)‖², which for classifier-free guidance is s²‖ε(c') − ε(c)‖². The
    null text stays as encoded, so that the outcome has no learnt one.

    Cost: that of `null_tta`.

    Raises:
        InvalidValue: under attention guidance, which has no branch of the prompt alone.
    """
    if problem.model.predicts_guided:
        raise InvalidValue("must be cfg for this method: it exchanges the two branches", "guidance")
    model = _Exchanged(problem.model)
    outcome = yield from null_tta(replace(problem, model=model, cond=problem.null, null=problem.cond))
    return replace(outcome, nulls=())


class _Exchanged(ModelWrapper):
    """A model whose guidance takes the null branch for the conditional one, and the other way round."""

    def guide(self, null: Tensor, cond: Tensor, scale: float) -> Tensor:
        return self.model.guide(cond, null, scale)
