"""Reading weights safely, and filling modules with exactly the keys they have."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from nulltta.errors import InvalidValue
from nulltta.rewards.sources import first_line

M = TypeVar("M", bound=nn.Module)


def read(*paths: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, on the CPU; of `{"state_dict": ...}` the inner ones. Of several
    files, the shards of a checkpoint, all together.

    Torch files are unpickled with `weights_only`: they can hold tensors and plain containers, and run nothing.

    Raises:
        NullTTAError: no such format, cut short, or something other than named tensors; the message names the file.
    """
    return {name: value for path in paths for name, value in _read(path).items()}


def check(path: Path) -> None:
    """Raises NullTTAError where a safetensors or torch file is cut short or another; reads little more than its index
    of tensors."""
    from safetensors import safe_open

    with _named_if_spoilt(path):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass
        else:
            torch.load(path, "meta", weights_only=True)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with _named_if_spoilt(path):
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidValue(f"'{path}' holds no named tensors: it is another kind of file")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


@contextmanager
def _named_if_spoilt(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise InvalidValue(f"'{path}' is no weights file, or is cut short: {first_line(error)}") from error


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
    refuse(
        what,
        lacks=[name for name in expected if name not in given],
        unknown=[name for name in given if name not in expected],
        misshapen=[name for name in expected if name in given and expected[name].shape != given[name].shape],
    )
    kinds = {name: dtype if value.is_floating_point() else value.dtype for name, value in given.items()}
    module.load_state_dict({n: value.to(device, kinds[n]) for n, value in given.items()}, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # not stored in files: positions 0, 1, 2, ...
            assert name.endswith("position_ids"), name
            owner, _, leaf = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
    return module.eval().requires_grad_(False)


def refuse(what: str, *, lacks: Sequence[str] = (), unknown: Sequence[str] = (), misshapen: Sequence[str] = ()) -> None:
    """Raises NullTTAError where any key is missing, unknown or of another shape."""
    faults = {"lacks": lacks, "has the unknown": unknown, "has another shape for": misshapen}
    if named := [_named(fault, names) for fault, names in faults.items() if names]:
        raise InvalidValue(f"{what}: the file {' and '.join(named)}")


def _named(fault: str, names: Sequence[str]) -> str:
    return f"{fault} '{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
