"""Reading a file that holds a null text of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from nulltta.null_text import file, fitted
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.value import NullText

AnyNullText: TypeAlias = NullText | FittedNullText


def load(path: str | Path, model: Any = None) -> AnyNullText:
    """Read a null text that was learnt for one prompt, or one that was fitted for all of them.

    Args:
        path: the file.
        model: a model or a diffusers pipeline that it must fit; None to read it for any.

    Raises:
        LoadError: if the file does not exist, is damaged or is not a null text.
        DoesNotFit: if it was made for another model.
    """
    metadata, _ = file.read_tensors(Path(path))
    kind = FittedNullText if metadata.get("format") == fitted.FORMAT else NullText
    return kind.load(path, model)
