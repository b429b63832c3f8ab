"""The prompt's embedding c optimised in the null text's place: is it the *null* that matters?"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta
from nulltta.contracts import ModelWrapper, Stream


def prompt_embedding(problem: Problem) -> Stream:
    """Null-TTA itself, with c and φ in each other's places: c' is optimised, ε(x_t, φ) is evaluated once a step.

    The consistency term is the same ‖ε̃(c') − ε̃(c)‖², which for plain guidance is s²‖ε(c') − ε(c)‖². As the null text
    stays as encoded, the outcome has none to keep.

    Cost: as `null_tta`.
    """
    model = _Exchanged(problem.model)
    outcome = yield from null_tta(replace(problem, model=model, cond=problem.null, null=problem.cond))
    return replace(outcome, nulls=())


class _Exchanged(ModelWrapper):
    """A model whose guidance takes the null branch for the conditional one, and the other way round."""

    def guide(self, null: Tensor, cond: Tensor, scale: float) -> Tensor:
        return self.model.guide(cond, null, scale)
