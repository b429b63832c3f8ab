"""The contenders' settings as they were chosen: one record per target and budget."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nulltta.baselines.catalogue import MethodSettings
from nulltta.config import NullTTAConfig
from nulltta.errors import LoadError, first_line

SETTINGS: Mapping[str, Path] = {
    "cfg": Path(__file__).with_name("settings.json"),
    "nag": Path(__file__).with_name("few_step_settings.json"),
}
"""The settings in the package by the guidance of a model's preset: those of the embedded model, and of the one that was
distilled to few steps."""


@dataclass(frozen=True)
class TunedSettings:
    """The settings of contenders for one target at one budget.

    Attributes:
        target: the reward for which they were chosen.
        budget: the denoiser evaluations per image for which they were chosen.
        settings: each contender's own settings, in units of the target's standard deviation.
    """

    target: str
    budget: int
    settings: Mapping[str, MethodSettings]


def nearest(tuned: Sequence[TunedSettings], target: str, budget: float) -> TunedSettings | None:
    """Return the settings for a target at the nearest budget, by ratio.

    Those of the first target are taken where there are none of this one, as settings in the unit of a reward carry
    over. None if there are no settings at all.
    """
    known = {each.target for each in tuned}
    taken = target if target in known or not tuned else tuned[0].target
    mine = [each for each in tuned if each.target == taken]
    return min(mine, key=lambda each: abs(math.log(max(budget, 1) / each.budget)), default=None)


def packaged_settings(model: str) -> Path:
    """Return the file in the package with the settings that suit a model, by its name."""
    return SETTINGS.get(NullTTAConfig.preset(model).guidance, SETTINGS["cfg"])


def read_settings(path: Path) -> list[TunedSettings]:
    """Read a file that `nulltta bench tune` wrote.

    Raises:
        LoadError: if the file cannot be read or holds something else.
    """
    try:
        return parsed_settings(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LoadError(f"cannot read settings from '{path}': {first_line(error)}") from error


def parsed_settings(records: Any) -> list[TunedSettings]:
    """Read records in JSON's types, as a request or a file holds them.

    Raises:
        ValueError, TypeError, KeyError: if they are something else.
    """
    if not isinstance(records, list | tuple):
        raise ValueError('it is not a list of {"target": ..., "budget": ..., "settings": {contender: {...}}}')
    found = [TunedSettings(str(each["target"]), int(each["budget"]), each["settings"]) for each in records]
    if any(each.budget < 1 or not all(isinstance(s, dict) for s in dict(each.settings).values()) for each in found):
        raise ValueError("its budgets are not 1 or more, or its settings are not {contender: {setting: value}}")
    return found
