"""The fields of `NullTTAConfig` as controls of the page."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nulltta.config import NullTTAConfig, without_none
from nulltta.errors import InvalidValue
from nulltta.runs.request import number_or_word

Kind = Literal["whole", "number", "words", "text"]
FIRST = ("num_inference_steps", "guidance_scale", "inner_steps", "num_particles")
_KINDS: Mapping[Any, Kind] = {int: "whole", float: "number", str: "text"}


@dataclass(frozen=True, slots=True)
class SettingControl:
    """One control, for a field or for one number of a field that is a pair.

    Attributes:
        name: the field.
        place: which number of a pair it is; None if the field is not a pair.
        kind: the kind of value: a whole number, a number, one of `choices`, or text.
        label: the text above the control.
        help: the text below the label.
        choices: the values of kind "words".
        optional: whether it may be empty, which is None.
    """

    name: str
    place: int | None
    kind: Kind
    label: str
    help: str
    choices: Sequence[str] = ()
    optional: bool = False

    def value(self, config: NullTTAConfig) -> Any:
        """Return the value of a configuration that this control shows."""
        value = getattr(config, self.name)
        value = value if self.place is None else value[self.place]
        if self.kind == "number" and value is not None:
            return float(value)
        return str(value) if self.kind == "text" else value


def controls() -> list[SettingControl]:
    """Return one or two controls per field, those of `FIRST` first."""
    named = {field.name: field for field in fields(NullTTAConfig)}
    order = [*FIRST, *(name for name in named if name not in FIRST)]
    hints = get_type_hints(NullTTAConfig)
    return [control for name in order for control in _of_field(name, hints[name], named[name].metadata["help"])]


def settings(shown: Sequence[SettingControl], values: Sequence[Any], model: str) -> NullTTAConfig:
    """Return the model's preset with the values of the controls that were changed.

    A control that still shows the preset's value is not passed on, because a default may depend on another setting.

    Raises:
        InvalidValue: if a control is empty, or `NullTTAConfig` refuses its value.
    """
    preset, stated = NullTTAConfig.preset(model), _stated(shown, values)
    return NullTTAConfig.preset(
        model, **{name: value for name, value in stated.items() if value != getattr(preset, name)}
    )


def _stated(shown: Sequence[SettingControl], values: Sequence[Any]) -> dict[str, Any]:
    """Return the value of each field."""
    stated: dict[str, Any] = {}
    for control, given in zip(shown, values, strict=True):
        if control.optional and given in (None, ""):
            stated[control.name] = None
            continue
        if given is None or given == "":
            raise InvalidValue(f"{control.label} is empty: give {control.help}")
        value = number_or_word(given) if isinstance(given, str) and control.kind != "words" else given
        if control.kind == "whole" and isinstance(value, float) and value.is_integer():
            value = int(value)  # browsers have one kind of number
        stated[control.name] = value if control.place is None else (*stated.get(control.name, ()), value)
    return stated


def _of_field(name: str, hint: Any, text: str) -> list[SettingControl]:
    label = name.replace("_", " ")
    if get_origin(hint) is tuple:
        words, _, said = text.partition(": ")  # "n_min n_max: inner steps ..."
        ends = words.split(" ")
        return [
            SettingControl(name, i, _KINDS[part], f"{label}: {ends[i]}", said) for i, part in enumerate(get_args(hint))
        ]
    if get_origin(hint) is Literal:
        return [SettingControl(name, None, "words", label, text, get_args(hint))]
    if (plain := without_none(hint)) is not hint:
        return [SettingControl(name, None, _KINDS[plain], label, text, optional=True)]
    if get_origin(hint) in (Union, types.UnionType):  # a number or a word
        return [SettingControl(name, None, "text", label, text)]
    return [SettingControl(name, None, _KINDS[hint], label, text)]
