"""The operator's defaults of the fields of `NullTTAConfig`, for requests that do not give them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from nulltta.config import NullTTAConfig
from nulltta.config.effects import OPTIMISING, defeating, without_effect
from nulltta.errors import InvalidValue
from nulltta.server.limits import above_limits
from nulltta.server.schemas import Options
from nulltta.server.settings import ServerSettings

FIELDS = tuple(field.name for field in fields(NullTTAConfig))


def parse_defaults(words: Sequence[str]) -> dict[str, Any]:
    """Parse "num_inference_steps=30" or "inner_steps=[5, 25]": a value is JSON or else text.

    Raises:
        InvalidValue: if a word has no "=", or names no field of `NullTTAConfig`.
    """
    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise InvalidValue(f"must be FIELD=VALUE, as in num_inference_steps=30, not '{word}'", field="default")
        name = name.strip().replace("-", "_")
        if name not in FIELDS:
            near = get_close_matches(name, FIELDS, n=1)
            hint = f": did you mean '{near[0]}'?" if near else f": choose among {', '.join(FIELDS)}"
            raise InvalidValue(f"must name a setting of the method, not '{name}'{hint}", field="default")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def checked_defaults(settings: ServerSettings, preset: str) -> Mapping[str, Any]:
    """Return the operator's defaults in the types of their fields.

    Args:
        settings: the operator's settings.
        preset: the name of the preset of the fields without a default.

    Raises:
        InvalidValue: if a default is out of range, or if a request without options would be above the limits.
    """
    try:
        defaults = Options.model_validate(settings.defaults).config_fields()
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidValue(f"{first['loc'][0]}: {first['msg']}", field="default") from error
    try:
        usual = NullTTAConfig.preset(preset)
        config = replace(usual, **defaults)
        _refuse_useless(config, usual, settings)
    except InvalidValue as error:
        raise InvalidValue(str(error), field="default") from error
    if (excess := above_limits(config, settings)) is not None:
        raise InvalidValue(
            f"must be at least the default {excess.field}, {excess.value}, not {excess.limit}: raise it, or lower the "
            f"default by --default {excess.field}=VALUE",
            field=excess.setting,
        )
    return defaults


def _refuse_useless(config: NullTTAConfig, usual: NullTTAConfig, settings: ServerSettings) -> None:
    """Refuse a default that no request can use, or one that leaves those without options unaligned."""
    given = [name for name in FIELDS if getattr(config, name) != getattr(usual, name)]
    started, first = settings.start is not None, settings.methods[0]
    by_method = [without_effect(config, method, started=started) for method in settings.methods]
    for name in given:
        if all(name in idle and idle[name].cause == "method" for idle in by_method):
            raise InvalidValue(f"has no effect: {by_method[0][name].reason}", name)
    if first in OPTIMISING:
        for name, reason in defeating(config, first, started=started).items():
            if name in given:
                raise InvalidValue(reason, name)
