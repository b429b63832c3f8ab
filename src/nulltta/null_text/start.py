"""Starting from a learnt null text: its φ' at every denoising step, for the prompts of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from nulltta.algorithm.problem import NullPath, Problem
from nulltta.contracts import Embedding
from nulltta.errors import DoesNotFit, InvalidValue
from nulltta.null_text.exact import recorded_config
from nulltta.null_text.first_version import renamed
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import free_shapes
from nulltta.null_text.loading import AnyNullText, load
from nulltta.null_text.value import NullText

STARTED = ("null-tta", "plain")
"""The methods that start from a learnt null text; "plain" samples under it, at the cost of plain sampling."""

AnyStart: TypeAlias = AnyNullText | str | Path
"""What is accepted as a start: a null text of either kind, or its file."""


def require_started(method: object) -> None:
    """Refuse a method that ignores a null text to start from.

    Raises:
        InvalidValue: if it is the name of one.
    """
    if isinstance(method, str) and method not in STARTED:
        raise InvalidValue(f"is for the methods {' and '.join(STARTED)}, not {method}: leave it out", "start")


def started(problem: Problem, given: AnyStart) -> NullPath:
    """Return the φ' of each denoising step of a run that starts from a null text.

    A null text that was learnt for one prompt serves all prompts of the run alike. At another number of steps, each
    step takes the nearest timestep's φ'.

    Raises:
        LoadError: if its file cannot be read.
        DoesNotFit: if it was made for another model, or its tensors have other shapes than the model's.
    """
    null_text = given if isinstance(given, NullText | FittedNullText) else load(given, problem.model)
    null_text.require_fit(problem.model)
    made, config = recorded_config(null_text.about), problem.config
    if isinstance(null_text, FittedNullText) and made.guidance == "nag" and made.nag_null != config.nag_null:
        raise InvalidValue(f"must be {made.nag_null}, from which the null text to start from counts", "nag_null")
    learnt = renamed(null_text, problem.model) if isinstance(null_text, NullText) else null_text
    timesteps = [step.timestep for step in problem.schedule()]

    def null(index: int) -> Embedding:
        return {**problem.null, **learnt.embedding(timesteps[index], problem.null, problem.cond)}

    if (theirs := free_shapes(null(0))) != (ours := free_shapes(problem.null)):
        raise DoesNotFit(f"the null text does not fit this model: its tensors are {theirs}, the model's {ours}")
    return null
