"""The flags that commands share: each is declared once, here.

Those of `RunSettings` and `NullTTAConfig` are made from the fields: the same names, types and defaults.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import Field, fields, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_origin, get_type_hints

import typer

from nulltta.config import NullTTAConfig
from nulltta.config.presets import require_preset
from nulltta.errors import InvalidValue
from nulltta.runs.request import RunSettings, default_reward, flag, number_or_word

Command: TypeAlias = Callable[..., None]
PANEL = "Settings of the method (the preset 'paper'; the embedded model's)"

Model = Annotated[
    str,
    typer.Option(
        help="'embedded', 'scenes', either with '-turbo', a diffusers directory, a hub id or a file (.safetensors)."
    ),
]
Reward = Annotated[
    str | None,
    typer.Option(
        help="The reward to raise: a name, or a sum like '0.7*clip + 0.3*sharpness' (default: of an embedded model "
        "its own score, clip or scenes-clip).",
        show_default=False,
    ),
]
RewardSource = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="The weights of a reward given by name: a hub id, a directory or a file."),
]
Method = Annotated[str, typer.Option(metavar="NAME", help="null-tta, plain, or another method (see the docs).")]
Start = Annotated[
    str | None,
    typer.Option(
        "--start", "--null-text", metavar="FILE",
        help="A null text that was learnt before (a file, a hub id, or 'embedded' for the one that ships), to start "
        "from; with --method plain, to sample under as it is.",
    ),
]  # fmt: skip
BatchSize = Annotated[int, typer.Option(help="Images sampled at a time; results do not depend on it.")]
MicroBatch = Annotated[
    int | None,
    typer.Option(help="Prompts or candidates that go through the networks at once (default: as many as fit)."),
]
TinyDecoder = Annotated[
    str | None, typer.Option(metavar="SOURCE", help="An AutoencoderTiny to use with --inner-decoder tiny.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the denoiser and the decoder.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ... (default: the GPU if there is one)", show_default=False)
]
DtypeName: TypeAlias = Literal["float32", "bfloat16", "float16"]
Dtype = Annotated[
    DtypeName | None,
    typer.Option(metavar="TYPE", help="float32, bfloat16 or float16 (default: float32 on the CPU, half on a GPU)."),
]
RewardDtype = Annotated[
    DtypeName | None, typer.Option(metavar="TYPE", help="The type that rewards compute in (default: each one's own).")
]
OffloadName: TypeAlias = Literal["none", "text-encoders", "model", "sequential"]
Offload = Annotated[
    OffloadName,
    typer.Option(
        metavar="PARTS",
        help="Parts to keep away from the GPU while others work: none, text-encoders, model (every network) or "
        "sequential (every layer).",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What unset settings of the method are taken from (default: the model's own)."),
]
CALL = "Arguments of the pipeline's own call (default: its own)"


def _of_call(text: str, **options: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=CALL, show_default=False, **options)


Steps = Annotated[int | None, typer.Option(help="T: number of denoising steps (default: the model's preset)")]
Guidance = Annotated[
    float | None, typer.Option(help="s: scale of classifier-free guidance, above 1 (default: the model's preset)")
]
Seed = Annotated[int, typer.Option(help="The seed of the initial noise, the same for every prompt without its own.")]
Seeds = Annotated[
    str | None,
    typer.Option(metavar="SEEDS", help="Several pictures of each prompt, one per seed, as in 0-7 or 0,3,5."),
]
NegativePrompt = Annotated[str, typer.Option(help="The null text to start from.")]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts", metavar="FILE",
        help="More prompts, one per line but for lines that begin with #; in a .jsonl file objects with prompt, "
        "negative_prompt and seed.",
    ),
]  # fmt: skip


def _folder(text: str) -> Path:
    """Parse the name of a folder, which must not be empty: it would be the current one."""
    if not text.strip():
        raise ValueError("name a folder")
    return Path(text)


OutFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        parser=_folder,
        help="The folder for pictures and result.json (default: out, or out-2, out-3, ... where that holds a run)",
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of another run in the folder of --out.")
]

_CALL_FLAGS: dict[str, Any] = {
    "base_model": Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="For a single file: the directory or hub id of the pipeline that it was made from.",
        ),
    ],
    "height": Annotated[int | None, _of_call("Height of the pictures, in pixels.")],
    "width": Annotated[int | None, _of_call("Width of the pictures, in pixels.")],
    "num_frames": Annotated[int | None, _of_call("Number of frames of a video.")],
    "image": Annotated[str | None, _of_call("The picture to start from.", metavar="FILE")],
    "strength": Annotated[
        float | None, _of_call("How much of the picture is replaced by noise, above 0 and up to 1.")
    ],
    "mask": Annotated[str | None, _of_call("Where the picture is painted anew: white is painted.", metavar="FILE")],
    "call": Annotated[
        list[str] | None,
        _of_call(
            "Any other argument, the value in JSON, as it is, or @FILE for a picture; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ],
}  # fmt: skip
_RUN_FLAGS: dict[str, Any] = {
    "reward": Reward, "reward_source": RewardSource, "reward_dtype": RewardDtype, "model": Model, "preset": Preset,
    "method": Method, "start": Start,
    "batch_size": BatchSize, "micro_batch": MicroBatch, "tiny_decoder": TinyDecoder, "compile": Compile,
    "device": Device, "dtype": Dtype, "offload": Offload, **_CALL_FLAGS,
}  # fmt: skip


def refuse_numbers(prompts: Sequence[str]) -> None:
    """Refuse a prompt that is a number: it is the third of two numbers for a flag.

    Raises:
        InvalidValue: if there is one.
    """
    for prompt in prompts:
        if re.fullmatch(r"[-+]?[0-9.]+", prompt):
            raise InvalidValue(
                f"'{prompt}' would be a prompt: give --inner-steps and --optimise-between two numbers each, and a "
                "prompt that is a number in a file for --prompts"
            )


def run_flags(**defaults: Any) -> Callable[[Command], Command]:
    """Give a command a flag per field of `RunSettings` and of `NullTTAConfig` instead of its parameter `settings`.

    The command receives a `RunSettings`. If it has a parameter `given`, that receives the config fields that were
    given on the command line, by name, and the command checks itself that they have an effect.

    Args:
        defaults: other defaults than those of `RunSettings`, by name.
    """
    defaults = {field.name: field.default for field in fields(RunSettings)} | {"call": None, "reward": None} | defaults
    run = [_keyword(name, annotation, defaults[name]) for name, annotation in _RUN_FLAGS.items()]

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)

        def build(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
            shared = {name: values.pop(name) for name in _RUN_FLAGS}
            shared["call"] = tuple(shared["call"] or ())
            if shared["preset"] is not None:
                require_preset(shared["preset"])
            if shared["reward"] is None:
                shared["reward"] = default_reward(shared["model"])
            preset = shared["preset"] or shared["model"]
            if "given" in signature.parameters:  # the command's own rows may give an effect to what has none
                config = replace(NullTTAConfig.preset(preset), **given)
                return {"settings": RunSettings(config=config, **shared), "given": given}
            return {"settings": RunSettings(config=NullTTAConfig.preset(preset, **given), **shared)}

        return _with_flags(command, signature, run, build)

    return decorate


def config_flags(command: Command) -> Command:
    """Give a command a flag per field of `NullTTAConfig` instead of its parameter `settings`.

    The command receives a dictionary of the fields that were given on the command line.
    """
    return _with_flags(command, inspect.signature(command, eval_str=True), [], lambda _, given: {"settings": given})


def call_flags(command: Command) -> Command:
    """Give a command `--base-model` and a flag per field of `CallSettings` in place of its parameter `of_call`.

    The command receives a dictionary of keyword arguments of `ModelSettings`.
    """
    signature = inspect.signature(command, eval_str=True)
    flags = [_keyword(name, annotation, None) for name, annotation in _CALL_FLAGS.items()]

    def convert(values: dict[str, Any]) -> dict[str, Any]:
        of_call = {name: values.pop(name) for name in _CALL_FLAGS}
        return {**values, "of_call": of_call | {"call": tuple(of_call["call"] or ())}}

    return _rewired(command, signature.replace(parameters=_in_place_of("of_call", flags, signature)), convert)


def _with_flags(
    command: Command,
    signature: inspect.Signature,
    run: Sequence[inspect.Parameter],
    build: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]],
) -> Command:
    """Return the command with the run's flags in the place of `settings`, and those of the config at the end."""
    config = [_config_flag(field) for field in fields(NullTTAConfig)]
    parameters = [each for each in _in_place_of("settings", run, signature) if each.name != "given"]

    def convert(values: dict[str, Any]) -> dict[str, Any]:
        found = {each.name: values.pop(each.name, None) for each in config}
        built = build(values, {name: value for name, value in found.items() if value is not None})
        return {**values, **built}

    return _rewired(command, signature.replace(parameters=[*parameters, *config]), convert)


def _in_place_of(
    name: str, flags: Sequence[inspect.Parameter], signature: inspect.Signature
) -> list[inspect.Parameter]:
    """Return a command's parameters, all by keyword, with flags in the place of one of them."""
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        kept = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += flags if parameter.name == name else [kept]
    return parameters


def _rewired(
    command: Command, signature: inspect.Signature, convert: Callable[[dict[str, Any]], dict[str, Any]]
) -> Command:
    """Return the command under another signature, whose values are converted to its own arguments."""

    @wraps(command)
    def with_flags(**values: Any) -> None:
        command(**convert(values))

    with_flags.__signature__ = signature  # type: ignore[attr-defined]
    with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    return with_flags


def _config_flag(field: Field[Any]) -> inspect.Parameter:
    """Return a parameter as Typer reads it, which is None where the flag is not given."""
    hint = get_type_hints(NullTTAConfig)[field.name]
    published, embedded = (
        _words(getattr(config, field.name)) for config in (NullTTAConfig(), NullTTAConfig.embedded())
    )
    default = published if published == embedded else f"{published}; {embedded}"
    shown = "" if default == "None" else f" ({default})"  # the help of a field without a default says what it means
    extras: dict[str, Any] = {"help": f"{field.metadata['help']}{shown}", "rich_help_panel": PANEL}
    if get_origin(hint) in (Union, types.UnionType):  # a number or a word
        hint, extras = str, {**extras, "parser": number_or_word, "metavar": "FLOAT|WORD"}
    elif get_origin(hint) is Literal:
        hint, extras = str, {**extras, "metavar": "WORD"}
    option = typer.Option(flag(field.name), show_default=False, **extras)
    return _keyword(field.name, Annotated[hint | None, option], None)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
