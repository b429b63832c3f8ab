"""Converting a budget in seconds into denoiser evaluations, by timing a contender on a few tuning prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from nulltta.alignment import align
from nulltta.benchmark.contenders import CONTENDERS, ContenderTask, arm
from nulltta.benchmark.counting import counted
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.rewards import load

PROMPTS = 4
TIMED_STEPS = 12
"""A contender is timed at so many evaluations per denoising step of the configuration: six plain samples."""


def seconds_per_evaluation(name: str, task: ContenderTask, model: GuidedModel, prompts: Sequence[str]) -> float:
    """Time one evaluation of a contender on this machine, decoding and scoring included, in a batch of four prompts.

    The time is the one that rows record: processor time on a CPU, which others may share, else wall time. The contender
    runs at 12T evaluations per image, which is the cost of six plain samples.

    Raises:
        InvalidValue: if there is no prompt.
    """
    method, config = arm(name, TIMED_STEPS * task.config.num_inference_steps, "", task).build()
    batch, reward = list(prompts[:PROMPTS]), load(task.target)
    if not batch:
        raise InvalidValue("contenders are timed on tuning prompts: give at least one")
    began = Clock()
    with counted(model) as evaluations:
        images = align(model, batch, reward, config=config, method=method, progress=False).images
    return began.spent(images.device).seconds / evaluations.total


class Clock:
    """The times since it was made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def spent(self, device: torch.device) -> Spent:
        """Return the times, after waiting for a GPU."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        return Spent(processor if device.type == "cpu" else wall, wall)


class Spent(NamedTuple):
    """Times in seconds.

    Attributes:
        seconds: processor time of this process on a CPU, wall time elsewhere.
        clock_seconds: wall time.
    """

    seconds: float
    clock_seconds: float


def evaluations_for(seconds: float, name: str, task: ContenderTask, model: GuidedModel, prompts: Sequence[str]) -> int:
    """Return how many evaluations a contender can make in a number of seconds per image; 0 if its cost is fixed."""
    if CONTENDERS[name].fixed:
        return 0
    return int(seconds / seconds_per_evaluation(name, task, model, prompts))
