"""Every error that this package raises on purpose, and what a surface should answer with.

    NullTTAError              exit code 1  HTTP 500  any failure that is told in one line
    ├── InvalidValue          exit code 2  HTTP 400  a mistake of the caller's; carries the field's name
    │   └── DoesNotFit        exit code 2  HTTP 400  two things that do not go together: a null text and a model
    ├── MissingExtra          exit code 2  HTTP 500  an optional library is not installed; says the install line
    ├── LoadError             exit code 2  HTTP 500  a model, reward or file that cannot be read
    ├── RewardError           exit code 1  HTTP 500  a reward failed, or its answer is not a usable score
    └── OutOfMemory           exit code 1  HTTP 503  memory ran out; says what to change

This module imports nothing heavy, so that reading settings needs no torch.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class NullTTAError(Exception):
    """The base class. Its message is one line: what was wrong, and what would be right.

    Attributes:
        argument: the name of the argument that it is about, where the message does not name it; see `blaming`.
    """

    argument: str | None = None
    exit_code: ClassVar[int] = 1
    """What the command line exits with."""
    http_status: ClassVar[int] = 500
    """What the server answers with."""


class InvalidValue(NullTTAError, ValueError):
    """A mistake of the caller's.

    Other settings that the reason refers to stand in round brackets, as in "draw fewer candidates (num_particles)", so
    that a surface can write these in its own way too.

    Attributes:
        field: the argument or setting that is to blame, such as "num_particles"; None where it is not a single one.
        reason: what is wrong with it. With a field, the message is "FIELD REASON", so that a surface can write the
            field in its own way: the command line writes "--num-particles REASON".
    """

    exit_code = 2
    http_status = 400

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason, field)
        self.reason, self.field = reason, field

    def __str__(self) -> str:
        return self.reason if self.field is None else f"{self.field} {self.reason}"


class DoesNotFit(InvalidValue):
    """A null text that was made for another model, or latents of another shape."""


class MissingExtra(NullTTAError):
    """An optional library is not installed.

    Attributes:
        needed_for: what needs it, for the message: "--engine ray", "Parquet".
        library: its name as people know it.
        extra: the name of this package's extra that installs it.
    """

    exit_code = 2

    def __init__(self, needed_for: str, library: str, extra: str) -> None:
        super().__init__(needed_for, library, extra)
        self.needed_for, self.library, self.extra = needed_for, library, extra

    def __str__(self) -> str:
        return f"{self.needed_for} needs {self.library}: pip install 'nulltta[{self.extra}]'"


class LoadError(NullTTAError):
    """A model, a reward's weights or a file that does not exist, does not read or is damaged."""

    exit_code = 2


class RewardError(NullTTAError):
    """A reward raised an exception, returned something other than one finite score per image, or has no gradient
    although one is needed."""


class OutOfMemory(NullTTAError):
    """Memory ran out, on the GPU or on the machine."""

    http_status = 503


@contextmanager
def blaming(argument: str) -> Iterator[None]:
    """Let errors of a `with` block say which argument they are about, unless they do so themselves.

    What loads a model or a reward does not know by which of a caller's arguments it was named.
    """
    try:
        yield
    except NullTTAError as error:
        if error.argument is None and getattr(error, "field", None) is None:
            error.argument = argument
        raise


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its type if it has none.

    Of an `OSError` it is the reason alone, without number and path.
    """
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(text).splitlines()[0]


_NO_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What errors of other classes than `torch.OutOfMemoryError` say where memory ran out: of a library's own buffers."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the GPU or on the machine."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return any(words in str(error) for words in _NO_MEMORY)


@contextmanager
def out_of_memory_as_error(*advice: str) -> Iterator[None]:
    """Raise `OutOfMemory` for any error inside the block that says that memory ran out.

    Args:
        advice: what the caller can do, most helpful first.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory: {', or '.join(advice)}") from error
