"""What a pipeline complains of in its own call, in this package's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from nulltta.errors import InvalidValue, NullTTAError, first_line, is_out_of_memory

OPTIONAL = ("ftfy",)
"""Libraries that diffusers' pipelines use under these names without saying that they are missing."""


@contextmanager
def their_errors_in_words(pipeline: Any) -> Iterator[None]:
    """Raise a pipeline's complaint about its call as an `InvalidValue` of one line.

    Raises:
        InvalidValue: in the place of what the pipeline raised.
    """
    try:
        yield
    except Exception as error:
        if not is_theirs(error):
            raise
        if library := _missing_library(error):
            raise InvalidValue(
                f"{type(pipeline).__name__}'s own call needs the library {library}: pip install {library}"
            ) from error
        empty = [n for n in pipeline.components if n.startswith("text_encoder") and getattr(pipeline, n) is None]
        without = f" without {' and '.join(empty)}" if empty else ""
        raise InvalidValue(f"{type(pipeline).__name__}'s own call failed{without}: {first_line(error)}") from error


def _missing_library(error: Exception) -> str | None:
    """Return the library that diffusers imports only where it is installed, and uses in any case."""
    name = error.name if isinstance(error, NameError) else None
    return name if name in OPTIONAL and find_spec(name) is None else None


def is_theirs(error: BaseException) -> bool:
    """Return whether an error is a pipeline's complaint about its call, not this package's nor a lack of memory."""
    if isinstance(error, NullTTAError) or is_out_of_memory(error):
        return False
    known = (
        TypeError, ValueError, RuntimeError, AttributeError, LookupError, ImportError, NameError, AssertionError,
        OverflowError,
    )  # fmt: skip
    return isinstance(error, known) or type(error) is Exception
