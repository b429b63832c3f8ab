"""Before models and rewards are loaded: that their device is there, and that loading is not chatty."""

from __future__ import annotations

import torch

from nulltta.types import NullTTAError


def usable_device(name: str | None) -> torch.device:
    """The device of that name, after a try; of none, the GPU if there is one.

    Raises:
        NullTTAError: there is no such device here.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise NullTTAError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error


def hide_loading_bars() -> None:
    """transformers' bars, which count files on the disk; downloads keep theirs."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()  # turns the downloads' off as well
    enable_progress_bars()
