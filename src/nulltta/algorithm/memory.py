"""Fitting a run into memory: work in rows, as many at once as fit."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from nulltta.errors import InvalidValue

T = TypeVar("T")


class MicroBatch:
    """How many rows (prompts, candidates) go through the networks at once.

    Where memory runs out, the number is halved, with a warning, and the rows that failed are done again: the result
    is the same up to the rounding of another batch size. The number found is kept for the rest of the run.

    rows: to start with; None for all there are.
    spare: what else to do about memory once a single row does not fit, such as switching on gradient checkpointing;
        done once.
    """

    def __init__(self, rows: int | None = None, spare: Callable[[], None] | None = None) -> None:
        if rows is not None and rows < 1:
            raise InvalidValue(f"the micro-batch must be 1 or more, not {rows}")
        self.rows, self.spare = rows, spare

    def map(self, function: Callable[[Tensor], T], count: int) -> list[T]:
        """`function` of consecutive row numbers (n,), n <= rows, which cover 0 .. count−1.

        Raises:
            RuntimeError: one row does not fit (`is_out_of_memory`), or the function failed otherwise.
        """
        found: list[T] = []
        start = 0
        while start < count:
            size = min(count - start, self.rows or count)
            try:
                found.append(function(torch.arange(start, start + size)))
            except RuntimeError as error:
                if not is_out_of_memory(error) or (size == 1 and self.spare is None):
                    raise
            else:
                start += size
                continue
            # Out of the handler: it held the failed attempt's tensors through the error's traceback.
            gc.collect()
            torch.cuda.empty_cache()
            self._give_way(size)
        return found

    def _give_way(self, size: int) -> None:
        if size > 1:
            self.rows = size // 2
            warnings.warn(f"out of memory with {size} at a time: going on with {self.rows}", stacklevel=3)
        elif self.spare is not None:
            self.spare()
            self.spare = None
            warnings.warn("out of memory with one at a time: going on with activations recomputed", stacklevel=3)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
