"""Command-line flags made from the fields of `NullTTAConfig`: same names, same types, its own help texts."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import Field, fields
from functools import wraps
from typing import Annotated, Any, Literal, TypeAlias, Union, get_origin, get_type_hints

import typer

from nulltta.config import NullTTAConfig
from nulltta.runs.request import flag, number_or_word

MODEL = typer.Option(help="'embedded', a diffusers directory, or a hub id.")
REWARD = typer.Option(help="What to raise: a name, or a sum like '0.7*clip + 0.3*colourfulness'.")
REWARD_SOURCE = typer.Option(
    metavar="SOURCE", help="Where a reward given by name has its weights: a hub id, a directory or a file."
)
GUARD = typer.Option(metavar="REWARD", help="Watched: where it falls, a prompt's null text is frozen.")
MICRO_BATCH = typer.Option(help="Prompts or candidates through the networks at once (default: as many as fit).")
METHOD = typer.Option(metavar="NAME", help="null-tta, plain, or a rival: see docs.")
TINY_DECODER = typer.Option(metavar="SOURCE", help="An AutoencoderTiny for --inner-decoder tiny.")
COMPILE = typer.Option("--compile", help="Compile the denoiser and the decoder.")
DEVICE = typer.Option(help="cpu, cuda, cuda:1, ... (default: the GPU if there is one)", show_default=False)
DTYPE = typer.Option(metavar="TYPE", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
PANEL = "Settings (default; the embedded model's preset)"


def config_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace `command`'s parameter `settings` by one flag a config field; it gets a dictionary of those given."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "settings"]
    flags = [_parameter(field) for field in fields(NullTTAConfig)]

    @wraps(command)
    def with_flags(**values: Any) -> None:
        settings = {flag.name: values.pop(flag.name, None) for flag in flags}
        command(**values, settings={name: value for name, value in settings.items() if value is not None})

    with_flags.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
    return with_flags


def _parameter(field: Field[Any]) -> inspect.Parameter:
    """A keyword parameter as Typer reads it: None where the flag is not given."""
    hint = get_type_hints(NullTTAConfig)[field.name]
    published, embedded = (
        _words(getattr(config, field.name)) for config in (NullTTAConfig(), NullTTAConfig.embedded())
    )
    default = published if published == embedded else f"{published}; {embedded}"
    extras: dict[str, Any] = {"help": f"{field.metadata['help']} ({default})", "rich_help_panel": PANEL}
    if get_origin(hint) in (Union, types.UnionType):  # a number or a word
        hint, extras = str, {**extras, "parser": number_or_word, "metavar": "FLOAT|WORD"}
    elif get_origin(hint) is Literal:
        hint, extras = str, {**extras, "metavar": "WORD"}
    option = typer.Option(flag(field.name), show_default=False, **extras)
    annotation = Annotated[hint | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
