"""Three settings to choose from by how long one is willing to wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from nulltta.config import NullTTAConfig
from nulltta.ui.pace import Pace
from nulltta.ui.wording import duration


def _fast(config: NullTTAConfig) -> NullTTAConfig:
    """Halve the inner steps and draw two candidates at most."""
    low, high = config.inner_steps
    return replace(config, inner_steps=(low // 2, max(1, high // 2)), num_particles=min(2, config.num_particles))


def _best(config: NullTTAConfig) -> NullTTAConfig:
    """Double the inner steps and draw two more candidates."""
    low, high = config.inner_steps
    return replace(config, inner_steps=(2 * low, 2 * high), num_particles=config.num_particles + 2)


PRESETS: Mapping[str, Callable[[NullTTAConfig], NullTTAConfig]] = {
    "Fast": _fast, "Balanced": lambda config: config, "Best": _best
}  # fmt: skip
"""What each choice makes of the model's own preset."""
USUAL = "Balanced"


def settings_of(name: str, model: str) -> NullTTAConfig:
    """Return the settings of a choice for a model."""
    return PRESETS[name](NullTTAConfig.preset(model))


def choices(model: str, pace: Pace, pictures: int = 1) -> list[tuple[str, str]]:
    """Return (label, name) of each choice; a label says how long a run takes, once that is known."""
    return [(_label(name, pace.predicted(settings_of(name, model), pictures)), name) for name in PRESETS]


def _label(name: str, seconds: float | None) -> str:
    return name if seconds is None else f"{name}, about {duration(seconds)}"
