"""Fitting a run into memory: work is done in rows, as many at once as fit."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from nulltta.errors import InvalidValue, is_out_of_memory

T = TypeVar("T")

ANY_RUN = (
    "give fewer prompts at a time, draw fewer candidates (num_particles)",
    "load the model in bfloat16 or with its parts offloaded (offload)",
)
"""What saves memory in any run."""
TINY_DECODER = "decode the inner steps with the model's tiny decoder (--inner-decoder tiny)"
"""What saves most where a model has a tiny decoder and the run does not use it."""


class MicroBatch:
    """The number of rows (prompts, candidates) that go through the networks at once.

    When memory runs out, the number is halved, with a warning, and the rows that failed are done again: the result is
    the same up to the rounding of another batch size. The number found is kept for the rest of the run.

    Args:
        rows: the number to start with; None for all there are.
        relieve: called when a single row does not fit, to save memory in another way, such as by gradient
            checkpointing; returns whether that saved anything more.

    Raises:
        InvalidValue: if `rows` is below 1.
    """

    def __init__(self, rows: int | None = None, relieve: Callable[[], bool] | None = None) -> None:
        if rows is not None and rows < 1:
            raise InvalidValue(f"must be 1 or more, not {rows}", "micro_batch")
        self.rows, self.relieve = rows, relieve

    def map(self, function: Callable[[Tensor], T], count: int) -> list[T]:
        """Apply `function` to consecutive row numbers, (n,) with n <= rows, which cover 0 to count − 1.

        Raises:
            RuntimeError, MemoryError: if one row does not fit (`is_out_of_memory`).
        """
        results: list[T] = []
        start = 0
        while start < count:
            size = min(count - start, self.rows or count)
            try:
                results.append(function(torch.arange(start, start + size)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                lack = error.with_traceback(None)  # the traceback holds the tensors of the failed attempt
            else:
                start += size
                continue
            gc.collect()
            torch.cuda.empty_cache()
            if not self._gives_way(size):
                raise lack
        return results

    def _gives_way(self, size: int) -> bool:
        """Ask for less memory from now on; return whether that was possible."""
        if size > 1:
            self.rows = size // 2
            warnings.warn(f"out of memory with {size} at a time: going on with {self.rows}", stacklevel=3)
            return True
        if self.relieve is None or not self.relieve():
            return False
        warnings.warn("out of memory with one at a time: going on with more activations recomputed", stacklevel=3)
        return True
