"""Fitting a run into memory: work is done in rows, as many at once as fit."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from nulltta.errors import InvalidValue, OutOfMemory, is_out_of_memory

T = TypeVar("T")


class MicroBatch:
    """The number of rows (prompts, candidates) that go through the networks at once.

    When memory runs out, the number is halved, with a warning, and the rows that failed are done again: the result is
    the same up to the rounding of another batch size. The number found is kept for the rest of the run.

    Args:
        rows: the number to start with; None for all there are.
        relieve: called once when a single row does not fit, to save memory in another way, such as by gradient
            checkpointing.

    Raises:
        InvalidValue: if `rows` is below 1.
    """

    def __init__(self, rows: int | None = None, relieve: Callable[[], None] | None = None) -> None:
        if rows is not None and rows < 1:
            raise InvalidValue(f"must be 1 or more, not {rows}", "micro_batch")
        self.rows, self.relieve = rows, relieve

    def map(self, function: Callable[[Tensor], T], count: int) -> list[T]:
        """Apply `function` to consecutive row numbers, (n,) with n <= rows, which cover 0 to count − 1.

        Raises:
            RuntimeError: if one row does not fit (`is_out_of_memory`), or the function fails otherwise.
        """
        results: list[T] = []
        start = 0
        while start < count:
            size = min(count - start, self.rows or count)
            try:
                results.append(function(torch.arange(start, start + size)))
            except RuntimeError as error:
                if not is_out_of_memory(error) or (size == 1 and self.relieve is None):
                    raise
            else:
                start += size
                continue
            # Outside the handler, because the error's traceback holds the tensors of the failed attempt.
            gc.collect()
            torch.cuda.empty_cache()
            self._give_way(size)
        return results

    def _give_way(self, size: int) -> None:
        if size > 1:
            self.rows = size // 2
            warnings.warn(f"out of memory with {size} at a time: going on with {self.rows}", stacklevel=3)
        elif self.relieve is not None:
            self.relieve()
            self.relieve = None
            warnings.warn("out of memory with one at a time: going on with activations recomputed", stacklevel=3)


@contextmanager
def out_of_memory_as_error(
    remedy: str = "give fewer prompts at a time, draw fewer candidates (num_particles), or load the model in bfloat16",
) -> Iterator[None]:
    """Raise `OutOfMemory`, with what to change as `remedy`, for an error in the block that says that memory ran out."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory: {remedy}") from error
