"""Converting a budget in seconds into denoiser evaluations, by timing a contender on a few tuning prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nulltta.alignment import align
from nulltta.benchmark.contenders import CONTENDERS, ContenderTask, arm
from nulltta.benchmark.counting import counted
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.rewards import load

PROMPTS = 4


def seconds_per_evaluation(name: str, task: ContenderTask, model: GuidedModel, prompts: Sequence[str]) -> float:
    """Time one evaluation of a contender on this machine, decoding and scoring included, in a batch of four prompts.

    The contender runs at 12T evaluations per image, which is the cost of six plain samples.

    Raises:
        InvalidValue: if there is no prompt.
    """
    method, config = arm(name, 12 * task.config.num_inference_steps, "", task).build()
    batch, reward = list(prompts[:PROMPTS]), load(task.target)
    if not batch:
        raise InvalidValue("contenders are timed on tuning prompts: give at least one")
    began = time.perf_counter()
    with counted(model) as evaluations:
        align(model, batch, reward, config=config, method=method, progress=False)
    return (time.perf_counter() - began) / evaluations.total


def evaluations_for(seconds: float, name: str, task: ContenderTask, model: GuidedModel, prompts: Sequence[str]) -> int:
    """Return how many evaluations a contender can make in a number of seconds per image; 0 if its cost is fixed."""
    if CONTENDERS[name].fixed:
        return 0
    return int(seconds / seconds_per_evaluation(name, task, model, prompts))
