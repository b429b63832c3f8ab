"""A user's own reward by its import path: "package.module:function"."""

from __future__ import annotations

import inspect
import sys
from functools import reduce
from importlib import import_module
from pathlib import Path

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue
from nulltta.rewards.compose import Custom


def import_reward(module: str, attribute: str) -> Reward:
    """Import a reward from a module, which may lie in the current directory.

    Exceptions that the module itself raises while it is imported are not caught.

    Args:
        module: the dotted name of the module.
        attribute: a `Reward`, a class whose constructor takes no arguments and makes one, or a callable
            (images (B, 3, H, W) in [0, 1], prompts) -> scores (B,).

    Raises:
        InvalidValue: if the module or the attribute does not exist, or if the attribute is not callable.
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
        raise InvalidValue(f"reward '{name}' is of type {type(found).__name__}: it must be callable")
    return Custom(found, name)
