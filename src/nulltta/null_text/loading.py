"""Reading a file that holds a null text of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from nulltta.null_text import file
from nulltta.null_text.bare import is_bare
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.sources import located
from nulltta.null_text.value import NullText

AnyNullText: TypeAlias = NullText | FittedNullText


def load(path: str | Path, model: Any = None) -> AnyNullText:
    """Read a null text that was learnt for one prompt, one that was fitted for all of them, or a bare embedding.

    Args:
        path: the file, or a repository of the Hugging Face Hub, as in "user/repo".
        model: a model or a diffusers pipeline that it must fit; None to read it for any. A bare embedding needs one.

    Raises:
        LoadError: if the file does not exist, is damaged or is not a null text.
        InvalidValue: if it is a bare embedding and no model is given.
        DoesNotFit: if it was made for another model.
    """
    path = located(path)
    if is_bare(path):
        return NullText.load(path, model)
    metadata, _ = file.read_tensors(path)
    kind = FittedNullText if metadata.get("format") == file.FITTED else NullText
    return kind.load(path, model)
