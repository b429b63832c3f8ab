"""What a visitor filled in, by the name of the control: as a request, and restored from a picture of ours."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from nulltta.errors import InvalidValue
from nulltta.runs.request import AlignRequest, RunSettings, flag, number_or_word
from nulltta.ui.controls import SettingControl, settings

CALL = ("width", "height", "num_frames", "strength", "image", "mask")
"""The settings of the pipeline's own call, in the order of the page's controls for them."""
UPLOADS = ("image", "mask")
_WHOLE = ("seed", "width", "height", "num_frames")
MOST_SEEDS = 8
"""The largest number of pictures per prompt."""


def name_of(control: SettingControl) -> str:
    """Return the name of a setting's control; those of a pair are numbered: "inner_steps.0"."""
    return control.name if control.place is None else f"{control.name}.{control.place}"


def request_of(form: Mapping[str, Any], controls: Sequence[SettingControl]) -> AlignRequest:
    """Return what a filled-in form asks for. Several pictures of a prompt differ by their seeds, which count up.

    Raises:
        InvalidValue: if a value is missing or out of range.
    """
    config = settings(controls, [form[name_of(control)] for control in controls], form["model"])
    shared = RunSettings(
        config=config, model=form["model"], reward=form["reward"], **call_settings([form[name] for name in CALL])
    )
    prompts = [line.strip() for line in form["prompts"].splitlines() if line.strip()]
    seed, pictures = _whole("seed", form["seed"], 0), _whole("pictures", form["pictures"], 1)
    if pictures > MOST_SEEDS:
        raise InvalidValue(f"must be {MOST_SEEDS} at most, not {pictures}", field="pictures")
    own: dict[str, Any] = {} if pictures == 1 else {
        "own_seeds": [seed + i for _ in prompts for i in range(pictures)], "prompts_file": Path("prompts.jsonl")
    }  # fmt: skip
    return AlignRequest(
        prompts=[prompt for prompt in prompts for _ in range(pictures)], settings=shared, seed=seed,
        negative_prompt=form["negative_prompt"], save_null_text=form["save_null_text"], **own,
    )  # fmt: skip


def call_settings(given: Sequence[Any]) -> dict[str, Any]:
    """Return the settings of the pipeline's call that were given, in the order of `CALL`.

    A browser has one kind of number.

    Raises:
        InvalidValue: if a picture is not one that was uploaded.
    """
    found = {name: value for name, value in zip(CALL, given, strict=True) if value not in (None, "", b"")}
    for name in UPLOADS:
        if not isinstance(found.get(name, b""), bytes):  # a visitor may not name a file
            raise InvalidValue("must be an uploaded picture", field=name)
    numbers = {name: _number(found[name]) for name in CALL[:4] if name in found}
    return found | numbers


def form_of_picture(path: str, controls: Sequence[SettingControl]) -> dict[str, Any]:
    """Return the form that made a picture, which carries its command line.

    Raises:
        InvalidValue: if the file is not a picture that this package made.
    """
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()
            words = shlex.split(getattr(picture, "text", {}).get("command", ""))
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidValue("the file is not a PNG: drop a picture that this page or `nulltta align` made") from error
    if words[:2] != ["nulltta", "align"] or "--" not in words:
        raise InvalidValue("the picture does not carry a `nulltta align` command, so its settings are not known")
    end = words.index("--")
    return _form_of_words(words[2:end], words[end + 1 :], controls)


def _form_of_words(
    options: Sequence[str], prompts: Sequence[str], controls: Sequence[SettingControl]
) -> dict[str, Any]:
    """Return the form of a command line; options that the page has no control for are left out."""
    given: dict[str, list[str]] = {}
    for word in options:
        if word.startswith("--"):
            name = word
            given[name] = []
        elif given:
            given[name].append(word)
    own = ("model", "reward", "seed", "negative_prompt", "save_null_text", *CALL[:4])
    form: dict[str, Any] = {name: given[flag(name)][0] for name in own if given.get(flag(name))}
    form |= {name: number_or_word(form[name]) for name in (*_WHOLE, "strength") if name in form}
    for control in controls:
        values, place = given.get(flag(control.name), []), control.place or 0
        if place < len(values):
            value: Any = values[place]
            form[name_of(control)] = number_or_word(value) if control.kind in ("whole", "number") else value
    return form | {"prompts": "\n".join(prompts), "pictures": 1, "preset": None}


def _number(given: Any) -> Any:
    """Return a number that was typed, whole where it is; what is not a number is left as it is, to be refused."""
    value = number_or_word(given) if isinstance(given, str) else given
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole(name: str, given: Any, least: int) -> int:
    """Return a whole number from a browser, which has one kind of number."""
    try:
        value = int(given)
    except (TypeError, ValueError):
        value = least - 1
    if not least <= value < 2**63 or value != float(given):
        raise InvalidValue(f"must be a whole number, {least} or more and below 2^63, not {given}", field=name)
    return value
