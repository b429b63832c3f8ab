"""A small Stable Diffusion that ships in the package: emoji on coloured backgrounds, with scorers and a judge.

`model_index.json` of the shipped pipeline names `nulltta.embedded.PatchAutoencoder`; diffusers looks it up here,
together with `ModelMixin`. Both are imported on first use, so that importing nulltta stays fast.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"
PIPELINE = WEIGHTS / "sd"

_LAZY = {
    "PatchAutoencoder": "nulltta.embedded.autoencoder",
    "ModelMixin": "diffusers.models.modeling_utils",
    "load_scorer": "nulltta.embedded.scorers",
    "load_judge": "nulltta.embedded.judge",
    "parse": "nulltta.embedded.grammar",
}


def __getattr__(name: str) -> Any:
    """Import a name of `_LAZY` on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
