"""From a budget in seconds to one in denoiser evaluations: a contender is timed on a few tuning prompts."""

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
    """What an evaluation of a contender takes on this machine, decoding and scoring included, in a batch of four.

    Timed at 12T evaluations an image, the cost of six plain samples.
    """
    method, config = arm(name, 12 * task.config.num_inference_steps, "", task).build()
    batch, reward = list(prompts[:PROMPTS]), load(task.target)
    if not batch:
        raise InvalidValue("methods are timed on tuning prompts: give at least one")
    began = time.perf_counter()
    with counted(model) as evaluations:
        align(model, batch, reward, config=config, method=method)
    return (time.perf_counter() - began) / evaluations.total


def evaluations_for(seconds: float, name: str, task: ContenderTask, model: GuidedModel, prompts: Sequence[str]) -> int:
    """The evaluations that a contender affords in so many seconds an image."""
    if CONTENDERS[name].fixed:
        return 0
    return int(seconds / seconds_per_evaluation(name, task, model, prompts))
