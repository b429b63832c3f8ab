"""One null text for all denoising steps: does it matter that each step has its own?"""

from __future__ import annotations

from dataclasses import replace

import torch

from nulltta.algorithm.embeddings import is_free
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import null_tta
from nulltta.contracts import Stream


def shared_null(problem: Problem) -> Stream:
    """Null-TTA learns φ'_1, ..., φ'_T; a second pass samples under their mean, frozen, with K candidates a step again.

    The mean is what a stock pipeline without a null text a step is given, too (`NullText.mean`). Both passes' steps
    are streamed, 2T of them; the images are the second one's.

    Cost for a prompt: `null_tta`'s, to which a budget applies, and 2KT + T denoiser branches without gradient.
    """
    learnt = (yield from null_tta(problem)).nulls
    mean = {
        name: torch.stack([null[name] for null in learnt]).mean(0) if is_free(tensor) else tensor
        for name, tensor in learnt[0].items()
    }
    frozen = replace(problem.config, inner_steps=(0, 0))
    return (yield from null_tta(replace(problem, start=mean, config=frozen)))
