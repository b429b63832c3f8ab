"""Before models and rewards are loaded: that their device is there, and that loading is not chatty."""

from __future__ import annotations

from typing import Any

import torch

from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.models import load_model


def usable_device(name: str | None) -> torch.device:
    """The device of that name, after a try; of none, the GPU if there is one.

    Raises:
        NullTTAError: there is no such device here.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidValue(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error


def hide_loading_bars() -> None:
    """transformers' bars, which count files on the disk; downloads keep theirs."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()  # turns the downloads' off as well
    enable_progress_bars()


def load_silently(source: str, device: torch.device, dtype: str, **options: Any) -> GuidedModel:
    """`load_model`, with its options, without bars but the downloads'."""
    from diffusers.utils import logging

    hide_loading_bars()
    logging.disable_progress_bar()
    return load_model(source, device=device, dtype=getattr(torch, dtype), **options)


def usual_dtype(device: torch.device) -> str:
    """What a model runs in where nothing else is asked for."""
    return "float32" if device.type == "cpu" else "bfloat16"
