"""Meters of a run: rows through denoiser and decoder, seconds by part, FLOPs and peak memory.

Everything is measured from outside, on the modules themselves, so that any implementation can be measured.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class PartMeter:
    """Counts and times the calls of a pipeline's parts.

    Attributes:
        rows: the number of rows, by part and by whether the call keeps a graph: "denoiser with gradient".
        seconds: the time of the forward passes, by part.
    """

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, counted and timed as `part`; its first tensor argument says how many rows a call has."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            began = _now()
            found = function(*args, **kwargs)
            self.seconds[part] += _now() - began
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            gradient = torch.is_grad_enabled() and _first(found).requires_grad
            self.rows[f"{part} {'with' if gradient else 'without'} gradient"] += len(tensors[0])
            return found

        return watched


@contextmanager
def watching(pipeline: Any) -> Iterator[PartMeter]:
    """Count and time the pipeline's denoiser and decoder inside the block."""
    meter = PartMeter()
    with ExitStack() as stack:
        for part, module, name in (("denoiser", pipeline.unet, "forward"), ("decoder", pipeline.vae, "decode")):
            original = getattr(module, name)
            setattr(module, name, meter.watch(part, original))
            stack.callback(setattr, module, name, original)
        yield meter


def flops(function: Callable[[], Any]) -> int:
    """Count the floating-point operations of a call by torch's formulas.

    Backward passes are included, and attention counts as its matrix products.
    """
    with sdpa_kernel(SDPBackend.MATH), _FlopCounter() as counter:
        function()
    return int(counter.total)


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """torch's `FlopCounterMode` without its module hooks, which `autograd.grad` does not get past."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = function(*args, **kwargs)
        if (formula := flop_registry.get(function._overloadpacket)) is not None:
            self.total += formula(*args, **kwargs, out_val=found)
        return found


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """Measure the most memory that tensors made during a call hold at one time, in bytes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return int(torch.cuda.max_memory_allocated() - before)
    with _StorageTracker() as tracker:
        function()
    return int(tracker.peak)


class _StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operations return, from their first appearance until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(t) for t in _tensors((args, kwargs))}
        found = function(*args, **(kwargs or {}))
        for tensor in _tensors(found):
            key = _storage(tensor)
            if key not in given and key not in self.seen:
                self._add(tensor.untyped_storage(), key)
        return found

    def _add(self, storage: Any, key: int) -> None:
        size = storage.nbytes()
        self.seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)

        def freed() -> None:
            self.seen.discard(key)
            self.live -= size

        weakref.finalize(storage, freed)


def _tensors(value: Any) -> list[Tensor]:
    """Return all tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for inner in value for t in _tensors(inner)] if isinstance(value, list | tuple) else []


def _storage(tensor: Tensor) -> int:
    """Return the identity of a tensor's storage."""
    return int(tensor.untyped_storage()._cdata)


def _first(found: Any) -> Tensor:
    """Return the output tensor, alone or first in a tuple."""
    tensor: Tensor = found if isinstance(found, Tensor) else found[0]
    return tensor


def _now() -> float:
    """Return the time once the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
