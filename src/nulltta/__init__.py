"""Null-TTA: better pictures for your own measure of better, from a frozen text-to-image model.

    model = nulltta.load_model("embedded")
    result = nulltta.align(model, "a cat face on a blue background, noto style", reward="clip", seed=0)
    result.save("out")

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import nulltta.embedded as _world  # noqa: F401 - imports nothing heavy; diffusers looks up the embedded model's parts there

if TYPE_CHECKING:
    from nulltta.alignment import Result, align
    from nulltta.config import NullTTAConfig
    from nulltta.contracts import GuidedModel, Reward, Step
    from nulltta.errors import NullTTAError
    from nulltta.models import load_model
    from nulltta.null_text.value import NullText

__version__ = "0.1.0"

_HOMES = {
    "GuidedModel": "contracts",
    "NullTTAConfig": "config",
    "NullTTAError": "errors",
    "NullText": "null_text.value",
    "Result": "alignment",
    "Reward": "contracts",
    "Step": "contracts",
    "align": "alignment",
    "load_model": "models",
}

__all__ = [
    "GuidedModel", "NullTTAConfig", "NullTTAError", "NullText", "Result", "Reward", "Step", "align", "load_model",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nulltta' has no attribute '{name}'")
    return getattr(import_module(f"nulltta.{_HOMES[name]}"), name)
