"""Reading state dictionaries safely, and filling modules with exactly the tensors they need."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from nulltta.errors import LoadError, first_line

M = TypeVar("M", bound=nn.Module)


def read(*paths: Path) -> dict[str, Tensor]:
    """Read the tensors of safetensors or torch files onto the CPU; several files are the shards of one checkpoint.

    A torch file is unpickled with `weights_only`, so that it can hold tensors and plain containers only and runs no
    code. If it holds {"state_dict": ...}, the inner dictionary is returned.

    Raises:
        LoadError: if a file is truncated, is of another format, or holds something other than named tensors.
    """
    return {name: value for path in paths for name, value in _read(path).items()}


def check(path: Path) -> None:
    """Check that a safetensors or torch file is whole, reading little more than its index of tensors.

    Raises:
        LoadError: if it is truncated or of another format.
    """
    from safetensors import safe_open

    with _as_load_error(path):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass
        else:
            torch.load(path, "meta", weights_only=True)


def _read(path: Path) -> dict[str, Tensor]:
    """Read one file."""
    from safetensors.torch import load_file

    with _as_load_error(path):
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise LoadError(f"'{path}' does not hold named tensors: it is another kind of file")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


@contextmanager
def _as_load_error(path: Path) -> Iterator[None]:
    """Turn what the readers raise for a damaged file into a `LoadError` that names the file."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise LoadError(f"'{path}' is not a weights file, or is truncated: {first_line(error)}") from error


def fill(
    build: Callable[[], M],
    state: Mapping[str, Tensor],
    *,
    what: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ignore: Collection[str] = (),
) -> M:
    """Build a module from a state dictionary, frozen and in evaluation mode.

    Its parameters are never initialised at random, so that large modules load quickly.

    Args:
        build: makes the module; it is called on the meta device.
        state: the tensors by name.
        what: the file and what it should be, for messages.
        device: where the module goes.
        dtype: the precision of its floating-point tensors.
        ignore: names that official files carry and that do not affect the score.

    Raises:
        LoadError: if tensors are missing, unknown or of another shape; the message names the first of each.
    """
    with torch.device("meta"):
        module = build()
    expected = module.state_dict()
    given = {name: value for name, value in state.items() if name in expected or name not in ignore}
    require_match(
        what,
        missing=[name for name in expected if name not in given],
        unknown=[name for name in given if name not in expected],
        misshapen=[name for name in expected if name in given and expected[name].shape != given[name].shape],
    )
    kinds = {name: dtype if value.is_floating_point() else value.dtype for name, value in given.items()}
    module.load_state_dict({n: value.to(device, kinds[n]) for n, value in given.items()}, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # a buffer that files do not store: the positions 0, 1, 2, ...
            if not name.endswith("position_ids"):
                raise LoadError(f"{what}: the file does not hold the buffer '{name}'")
            owner, _, leaf = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
    return module.eval().requires_grad_(False)


def require_match(
    what: str, *, missing: Sequence[str] = (), unknown: Sequence[str] = (), misshapen: Sequence[str] = ()
) -> None:
    """Refuse a state dictionary that does not match its module.

    Raises:
        LoadError: if any name is listed; the message says the first of each kind and how many more there are.
    """
    faults = {"lacks": missing, "has the unknown": unknown, "has another shape for": misshapen}
    if listed := [_first_and_count(fault, names) for fault, names in faults.items() if names]:
        raise LoadError(f"{what}: the file {' and '.join(listed)}")


def _first_and_count(fault: str, names: Sequence[str]) -> str:
    """Say the first name and how many more there are."""
    return f"{fault} '{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
