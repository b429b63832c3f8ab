"""`load_model`: from a name, a directory, a hub id or a live diffusers pipeline to a `GuidedModel`.

One file a family of denoisers; FAMILIES says which pipeline class each one adapts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from nulltta.types import GuidedModel, NullTTAError

FAMILIES: Mapping[str, tuple[str, str]] = {
    "StableDiffusionPipeline": ("nulltta.models.unet", "StableDiffusion"),
}
EMBEDDED = Path(__file__).parent.parent / "world" / "weights" / "sd"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_model(
    source: str | Path | Any, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> GuidedModel:
    """A frozen model to align.

    Args:
        source: "embedded", a diffusers directory, a hub id ("org/name"), or a live `DiffusionPipeline`, whose
            weights are then frozen in place.
        device: default: the GPU if there is one; a live pipeline stays where it is.
        dtype: default: float32 on the CPU, bfloat16 on a GPU; a live pipeline keeps its own.

    Raises:
        NullTTAError: there is no such model, or its family is not supported.
    """
    if isinstance(source, str | Path):
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        return _adapt(_from_pretrained(str(source), dtype).to(device), name=str(source))
    if not hasattr(source, "components"):
        raise NullTTAError(f"a {type(source).__name__} is no model: give a name, a directory or a diffusers pipeline")
    pipeline = source if device is None and dtype is None else source.to(device=device, dtype=dtype)
    return _adapt(pipeline, name=type(pipeline).__name__)


def _from_pretrained(source: str, dtype: torch.dtype) -> Any:
    location = _locate(source)
    from diffusers import DiffusionPipeline

    try:
        family = DiffusionPipeline.load_config(location).get("_class_name", "?")
        _require_supported(family)
        extras = {"safety_checker": None, "requires_safety_checker": False} if _has_checker(family) else {}
        pipeline = DiffusionPipeline.from_pretrained(location, dtype=dtype, **extras)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if isinstance(error, NullTTAError):
            raise
        raise NullTTAError(f"model '{source}' does not load: {_first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _locate(source: str) -> str:
    """A directory that holds a pipeline, or a hub id; anything else is refused before diffusers is imported."""
    if source == "embedded":
        return str(EMBEDDED)
    if source and Path(source).is_dir():
        index = Path(source) / "model_index.json"
        if not index.is_file():
            raise NullTTAError(f"'{source}' is no diffusers model: it has no model_index.json")
        try:
            json.loads(index.read_text())
        except ValueError as error:
            raise NullTTAError(f"'{source}' is no diffusers model: its model_index.json is not JSON") from error
        return source
    if _HUB_ID.fullmatch(source) and not Path(source).exists():
        return source
    raise NullTTAError(
        f"unknown model '{source}': give 'embedded', a diffusers directory, or a hub id such as "
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )


def _adapt(pipeline: Any, name: str) -> GuidedModel:
    family = type(pipeline).__name__
    _require_supported(family)
    module, adapter = FAMILIES[family]
    model: GuidedModel = getattr(import_module(module), adapter)(pipeline, name)
    return model


def _require_supported(family: str) -> None:
    if family not in FAMILIES:
        raise NullTTAError(f"{family} is not supported: the families are {', '.join(FAMILIES)}")


def _has_checker(family: str) -> bool:
    return family == "StableDiffusionPipeline"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
