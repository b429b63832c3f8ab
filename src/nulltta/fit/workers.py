"""The processes of one fit, one per GPU, as `accelerate launch` or `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from nulltta.errors import NullTTAError, first_line

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workers:
    """Processes that share the rows of a fit and are otherwise alike.

    Each computes its share and receives everybody's, so that all of them take the same step, up to their rounding.

    Attributes:
        count: the number of processes.
        rank: the number of this one, from 0.
        local: its number on this machine, which is that of its GPU.
    """

    count: int = 1
    rank: int = 0
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks to the user."""
        return self.rank == 0

    def map(self, function: Callable[[Tensor], T], count: int) -> list[T]:
        """Call a function with each process's share of the rows 0 to count − 1 and return all results, in order.

        Results travel between processes by pickle: tensors should be on the CPU.

        Raises:
            NullTTAError: if the function raises in another process; what it raises in this one is raised as it is.
        """
        if self.count == 1:
            return [function(torch.arange(count))]
        mine, results, failed = torch.arange(count).tensor_split(self.count)[self.rank], [], None
        try:
            results += [function(mine)] if len(mine) else []
        except Exception as error:  # the others wait for an answer
            failed = error
        everybody = self._gathered((results, "" if failed is None else first_line(failed)))
        if failed is not None:
            raise failed
        for rank, (_, reason) in enumerate(everybody):
            if reason:
                raise NullTTAError(f"process {rank} failed: {reason}")
        return [result for theirs, _ in everybody for result in theirs]

    def agree(self, value: object) -> bool:
        """Return whether a value is the same in all processes."""
        return self.count == 1 or all(theirs == value for theirs in self._gathered(value))

    def _gathered(self, value: object) -> list[Any]:
        """Return everybody's value.

        Raises:
            NullTTAError: if another process has ended.
        """
        everybody: list[Any] = [None] * self.count
        try:
            distributed.all_gather_object(everybody, value)
        except RuntimeError as error:
            raise NullTTAError("another process of the fit has ended: see what it says") from error
        return everybody


ALONE = Workers()
"""This process alone."""


@contextmanager
def joined() -> Iterator[Workers]:
    """Join the processes that were started for this command, and leave them at the end.

    What they tell each other is small beside what each computes, and goes through the CPU (gloo).

    Yields:
        The processes that `accelerate launch` or `torchrun` says there are; else this one alone.

    Raises:
        NullTTAError: if they cannot be joined.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    try:
        distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        raise NullTTAError(
            "WORLD_SIZE is set, but the processes cannot be joined: start them by accelerate launch or torchrun, or "
            f"unset it ({first_line(error)})"
        ) from error
    try:
        yield Workers(distributed.get_world_size(), distributed.get_rank(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        distributed.destroy_process_group()
