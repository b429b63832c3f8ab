"""Mistakes in a command line, which Typer finds, in the words of this package's own errors."""

from __future__ import annotations

import re
from typing import Any

import typer


def describe_usage(error: typer.TyperException) -> str:
    """Return one line that names the flag: "--seed must be a whole number, not 'x'"; "" where help was printed."""
    message = error.format_message()
    if (option := getattr(error, "option_name", None)) and (found := re.search(r"requires (an|\d+) argument", message)):
        return f"{option} takes {'a value' if found[1] == 'an' else f'{found[1]} values'}"
    parameter: Any = getattr(error, "param", None)
    if parameter is None:
        return message
    is_flag = parameter.param_type_name == "option"
    name = max(parameter.opts, key=len) if is_flag else parameter.metavar or parameter.name.upper()
    if message.startswith("Missing"):
        return f"{name} is missing"
    causes: list[Any] = getattr(error.__cause__, "errors", list)()
    return (
        f"{name} {_expected(causes[0], parameter.nargs)}" if causes else f"{name}: {getattr(error, 'message', message)}"
    )


def _expected(cause: dict[str, Any], count: int) -> str:
    """Return what a value must be, from a validation error of Pydantic's."""
    several = "two {}s" if count == 2 else "a {}"
    kind, given = cause["type"], repr(cause["input"])
    if kind.startswith("int"):
        return f"must be {several.format('whole number')}, not {given}"
    if kind.startswith("float"):
        return f"must be {several.format('number')}, not {given}"
    if kind == "greater_than_equal":
        return f"must be {cause['ctx']['ge']} or more, not {cause['input']}"
    if kind == "less_than_equal":
        return f"must be {cause['ctx']['le']} or less, not {cause['input']}"
    if choices := re.search(r" is not one of (.*?)\.?$", cause["msg"]):
        return f"must be one of {choices[1].replace(chr(39), '')}, not {given}"
    return f"cannot be {given}: {cause['msg'].removeprefix('Value error, ')}"
