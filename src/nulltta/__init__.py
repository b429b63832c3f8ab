"""Null-TTA: images that score better under a reward of your choice, from a frozen text-to-image model.

    model = nulltta.load_model("embedded")
    result = nulltta.align(model, "two foxes on a blue background, fluent style", reward="clip", seed=0)
    result.save("out")

The public names are loaded when they are first used, so that importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import nulltta.embedded as _world  # noqa: F401 - where diffusers looks up the embedded model's parts

if TYPE_CHECKING:
    from nulltta import rewards
    from nulltta.algorithm import budget
    from nulltta.algorithm.problem import Problem
    from nulltta.alignment import Result, align
    from nulltta.config import NullTTAConfig
    from nulltta.contracts import CleanLatents, GuidedModel, LatentReward, Outcome, Reward, Step, Stream
    from nulltta.errors import (
        DoesNotFit,
        InvalidValue,
        LoadError,
        MissingExtra,
        NullTTAError,
        OutOfMemory,
        RewardError,
    )
    from nulltta.evaluation.diagnosis import Diagnosis, diagnose
    from nulltta.models import load_model
    from nulltta.null_text.replay import replay
    from nulltta.null_text.value import NullText
    from nulltta.prompts import EncodedPrompt

__version__ = "0.1.0"

_MODULES = {
    "CleanLatents": "contracts",
    "Diagnosis": "evaluation.diagnosis",
    "DoesNotFit": "errors",
    "EncodedPrompt": "prompts",
    "GuidedModel": "contracts",
    "InvalidValue": "errors",
    "LatentReward": "contracts",
    "LoadError": "errors",
    "MissingExtra": "errors",
    "NullTTAConfig": "config",
    "NullTTAError": "errors",
    "NullText": "null_text.value",
    "OutOfMemory": "errors",
    "Outcome": "contracts",
    "Problem": "algorithm.problem",
    "Result": "alignment",
    "Reward": "contracts",
    "RewardError": "errors",
    "Step": "contracts",
    "Stream": "contracts",
    "align": "alignment",
    "diagnose": "evaluation.diagnosis",
    "load_model": "models",
    "replay": "null_text.replay",
}
_SUBMODULES = {"budget": "algorithm.budget", "rewards": "rewards"}

__all__ = [
    "CleanLatents", "Diagnosis", "DoesNotFit", "EncodedPrompt", "GuidedModel", "InvalidValue", "LatentReward",
    "LoadError", "MissingExtra", "NullTTAConfig", "NullTTAError", "NullText", "OutOfMemory", "Outcome", "Problem",
    "Result", "Reward", "RewardError", "Step", "Stream", "align", "budget", "diagnose", "load_model", "replay",
    "rewards",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"nulltta.{_SUBMODULES[name]}")
    if name not in _MODULES:
        raise AttributeError(f"module 'nulltta' has no attribute '{name}'")
    return getattr(import_module(f"nulltta.{_MODULES[name]}"), name)
