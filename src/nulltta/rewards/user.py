"""Your own reward by import path: "package.module:function"."""

from __future__ import annotations

import inspect
import sys
from functools import reduce
from importlib import import_module
from pathlib import Path

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue
from nulltta.rewards.compose import Custom


def load(module: str, attribute: str) -> Reward:
    """What `attribute` of `module` is: a `Reward`, a class of one that needs no arguments, or a callable
    (images (B, 3, H, W) in [0, 1], prompts) -> (B,). Modules of the current directory are found too.

    Errors that your module raises on its own are not caught.

    Raises:
        NullTTAError: there is no such module or attribute, or it cannot be called.
    """
    name = f"{module}:{attribute}"
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = reduce(getattr, attribute.split("."), import_module(module))
    except ModuleNotFoundError as error:
        raise InvalidValue(f"reward '{name}': there is no module '{error.name}' to import") from error
    except AttributeError as error:
        raise InvalidValue(f"reward '{name}': {error}") from error
    finally:
        sys.path.remove(here)
    if inspect.isclass(found):
        found = found()
    if isinstance(found, Reward):
        return found
    if not callable(found):
        raise InvalidValue(f"reward '{name}' is a {type(found).__name__}: it must be callable")
    return Custom(found, name)
