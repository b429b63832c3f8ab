"""Reading weights safely, and filling modules with exactly the keys they have."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from nulltta.rewards.sources import first_line
from nulltta.types import NullTTAError

M = TypeVar("M", bound=nn.Module)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, on the CPU; of `{"state_dict": ...}` the inner ones.

    Torch files are unpickled with `weights_only`: they can hold tensors and plain containers, and run nothing.

    Raises:
        NullTTAError: no such format, cut short, or something other than named tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise NullTTAError(f"'{path}' is no weights file, or is cut short: {first_line(error)}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise NullTTAError(f"'{path}' holds no named tensors: it is another kind of file")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def fill(
    build: Callable[[], M],
    state: Mapping[str, Tensor],
    *,
    what: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ignore: Collection[str] = (),
) -> M:
    """A module of `state`'s weights, frozen, in evaluation mode; never initialised, so large ones are quick.

    Args:
        build: makes the module; called on the meta device.
        what: the file and kind, for messages.
        ignore: keys that official files carry and that hold no weights of the score.

    Raises:
        NullTTAError: keys are missing, unknown or of another shape; the message names the first of each.
    """
    with torch.device("meta"):
        module = build()
    expected = module.state_dict()
    given = {name: value for name, value in state.items() if name in expected or name not in ignore}
    faults = [
        _named("lacks", [name for name in expected if name not in given]),
        _named("has the unknown", [name for name in given if name not in expected]),
        _named("has another shape for", [n for n in expected if n in given and expected[n].shape != given[n].shape]),
    ]
    if any(faults):
        raise NullTTAError(f"{what}: the file {' and '.join(fault for fault in faults if fault)}")
    kinds = {name: dtype if value.is_floating_point() else value.dtype for name, value in given.items()}
    module.load_state_dict({n: value.to(device, kinds[n]) for n, value in given.items()}, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # not stored in files: positions 0, 1, 2, ...
            assert name.endswith("position_ids"), name
            owner, _, leaf = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
    return module.eval().requires_grad_(False)


def _named(fault: str, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{fault} '{names[0]}'{more}" if names else ""
