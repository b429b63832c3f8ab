"""The observed steps of a scheduler by itself, without a pipeline around it."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch

from nulltta.models import levels
from nulltta.models.recording import DenoiserCall, StepRecord
from nulltta.models.steps import ObservedStep


def steps_of(scheduler: Any, count: int, **options: Any) -> list[ObservedStep]:
    """What is observed of a scheduler that is called by a pipeline for so many steps, noisiest first."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(count, **options)
    sample = torch.zeros(1, 4, 8, 8)
    records = []
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # NumPy's, in diffusers' schedulers
    for t in scheduler.timesteps:
        call = DenoiserCall("unet", {}, None)
        records.append(StepRecord([call], sample, t, sample, copy.copy(scheduler), sample))
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, t)
        scheduler.step(sample, t, sample)
    return [step for step in levels.schedule(records) if step.component]
