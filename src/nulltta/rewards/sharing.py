"""Networks that several rewards use are loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch

T = TypeVar("T")
_LOADED: WeakValueDictionary[tuple[str, str, torch.dtype], Any] = WeakValueDictionary()


def shared(path: Path, device: torch.device, dtype: torch.dtype, make: Callable[[], T]) -> T:
    """Return what `make` makes of a weights file, made once per file, device and dtype.

    It is freed with the last reward that holds it.
    """
    key = (str(path.resolve()), str(device), dtype)
    found: T | None = _LOADED.get(key)
    if found is None:
        found = _LOADED[key] = make()
    return found
