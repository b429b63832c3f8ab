"""A pipeline, and what surrounds it, changed for a call and put back exactly as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_QUIET = ("safety_checker", "watermark")
"""Components that change a finished image: left out of recordings."""


@contextmanager
def overruled(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of one object replaced, and put back as it was: absent where the class had it."""
    had, before = name in vars(owner), vars(owner).get(name)
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if had:
            object.__setattr__(owner, name, before)
        else:
            vars(owner).pop(name, None)


@contextmanager
def restored(pipeline: Any) -> Iterator[None]:
    """Everything that a call changes in a pipeline put back: its attributes, and the decoder's precision."""
    before = {key: value for key, value in vars(pipeline).items() if key != "_all_hooks"}
    precision = getattr(getattr(pipeline, "vae", None), "dtype", None)
    for name in _QUIET:
        if getattr(pipeline, name, None) is not None:
            object.__setattr__(pipeline, name, None)
    object.__setattr__(pipeline, "_progress_bar_config", {"disable": True})
    try:
        yield
    finally:
        state = vars(pipeline)
        hooks = state.get("_all_hooks")
        state.clear()
        state.update(before)
        if hooks is not None:
            state["_all_hooks"] = hooks
        if precision is not None and pipeline.vae.dtype != precision:
            pipeline.vae.to(dtype=precision)  # upcast for decoding by a call that was ended there


@contextmanager
def pinned_ambience() -> Iterator[None]:
    """float32 as the default dtype, and the global random state untouched."""
    state = torch.get_rng_state()
    try:
        with float32_by_default():
            yield
    finally:
        torch.set_rng_state(state)


@contextmanager
def float32_by_default() -> Iterator[None]:
    """float32 as PyTorch's default dtype, whatever it is outside."""
    dtype = torch.get_default_dtype()
    if dtype == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
