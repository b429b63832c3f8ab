"""From the rows of a table to checked requests. This module does not import torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from nulltta.config import NullTTAConfig, given_in_vain, one_of, refuse_without_effect
from nulltta.config.presets import preset_name
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.files import absolute
from nulltta.prompts import require_text
from nulltta.runs.request import AlignRequest, RunSettings
from nulltta.runs.table import TableRow

SETTINGS = tuple(field.name for field in fields(NullTTAConfig))
COLUMNS = ("id", "prompt", "negative_prompt", "seed", *SETTINGS)
LOOKAHEAD = 1000
"""The number of rows that may wait for others with the same settings, which are then sampled together."""
_HINTS = get_type_hints(NullTTAConfig)


@dataclass(frozen=True)
class RowTask:
    """The work of one row.

    Attributes:
        row: the row's number, from 1.
        id: the row's id.
        request: the request for the row's prompt alone.
        shared: what determines the files of all rows beside that, in JSON's types.
        own: the settings that the row gives itself.
    """

    row: int
    id: str
    request: AlignRequest
    shared: Mapping[str, Any]
    own: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The row's prompt."""
        return self.request.prompts[0]

    @cached_property
    def name(self) -> str:
        """The name of the row's files: a hash of everything that determines them, the id included.

        Nothing that a user wrote becomes a path, and a row that was changed has other files. A model in a directory is
        the same however its path is written.
        """
        asked = {"id": self.id, **self.shared, **self.request.arguments(), "model": _place(self.request.settings.model)}
        return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=10).hexdigest()


@dataclass(frozen=True, slots=True)
class RowFailure:
    """The reason why a row has no image."""

    row: int
    id: str | None
    reason: str


def tasks(
    rows: Iterable[TableRow],
    settings: RunSettings,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    negative_prompt: str = "",
) -> Iterator[RowTask | RowFailure]:
    """Yield the task of each valid row and the failure of each other one, in order.

    Args:
        rows: the rows.
        settings: the settings that all rows share.
        config: the fields of the configuration that were given for all rows; a row's own fields override them.
        seed: the seed of rows without one.
        negative_prompt: the negative prompt of rows without one.

    Raises:
        InvalidValue: if the configuration of all rows is invalid, or a picture that they share cannot be read.
    """
    shared = _shared(settings)
    preset = preset_name(settings.preset or settings.model)  # found once: it may read the model's index
    # Those of rows without settings of their own.
    settings = replace(settings, config=replace(NullTTAConfig.preset(preset), **(config or {})))
    common = {"seed": seed, "negative_prompt": negative_prompt}
    first: dict[str, int] = {}  # id -> the row that has it
    for row in rows:
        name = None
        try:
            name = _id(row)
            if name in first:
                raise InvalidValue(f"its id is that of row {first[name]}: ids must differ")
            first[name] = row.number
            request = _request(row, name, settings, common, partial(_config, settings))
            own = tuple(name for name in SETTINGS if name in row.cells)
            found: RowTask | RowFailure = RowTask(row.number, name, request, shared, own)
        except (NullTTAError, OverflowError) as error:  # OverflowError: a number of hundreds of digits
            found = RowFailure(row.number, name, str(error))
        yield found


def _shared(settings: RunSettings) -> dict[str, Any]:
    """Return what determines the files of all rows beside a row's own request, in JSON's types.

    These are the precisions, the decoder of inner steps, the sources of weights, and the arguments of the pipeline's
    call. Pictures and the file of a null text to start from are told by their contents. The device, offloading,
    compilation and the sizes of batches are not among them: they do not change the pictures, so a batch that ran out
    of memory can be continued under others.
    """
    optional = {
        "base_model": _place(settings.base_model), "reward_source": _place(settings.reward_source),
        "reward_dtype": settings.reward_dtype,
    }  # fmt: skip
    given = {name: value for name, value in optional.items() if value is not None}
    if (start := settings.start) is not None:
        file = WORLDS[start].null_text if start in WORLDS else Path(start)
        if file is not None and file.is_file():
            given["start_contents"] = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    always = {"dtype": settings.dtype, "tiny_decoder": _place(settings.tiny_decoder)}
    return {**always, **given, **settings.contents()}


class GivenForAll:
    """The settings that were given for all rows, of which some may have no effect on any of them.

    Args:
        settings: the settings that all rows share.
        config: the fields of the configuration that were given for all rows.
    """

    def __init__(self, settings: RunSettings, config: Mapping[str, Any]) -> None:
        self.given = config
        self._usual = settings.usual
        self._shared, self._last = settings, self._usual
        # Whether the reward gives a gradient -> what is wrong with a setting for every row so far; none were seen yet.
        self._vain: dict[bool, dict[str, str]] = {}
        self._tiny = False

    def see(self, task: RowTask) -> None:
        """Find out which of the settings have an effect on a row."""
        config = task.request.settings.config
        if config is self._last and self._vain:  # rows without settings of their own share one object
            return
        self._tiny |= config.inner_decoder == "tiny"
        self._last, known = config, {"started": self._shared.start is not None}
        for differentiable in (True, False):
            found = given_in_vain(config, self._usual, self._shared.method, differentiable=differentiable, **known)
            before = self._vain.get(differentiable, dict.fromkeys(self.given, ""))
            self._vain[differentiable] = {name: found[name] for name in before if name in found}

    def checked(self) -> RunSettings:
        """Return the settings to load, whose configuration holds what depends on the reward that is not loaded yet.

        Raises:
            InvalidValue: if the method is unknown, or a setting has no effect on any row.
        """
        either = self._vain.get(True, {}) | self._vain.get(False, {})
        for name, reason in either.items():
            if all(name in found for found in self._vain.values()):
                from nulltta.alignment import METHODS  # it imports torch

                one_of(self._shared, "method", METHODS)  # of an unknown method nothing is known to have an effect
                raise InvalidValue(reason, name)
        left = {name: self.given[name] for name in either} | ({"inner_decoder": "tiny"} if self._tiny else {})
        return replace(self._shared, config=replace(self._usual, **left))


def batches(pending: Iterable[RowTask], size: int) -> Iterator[list[RowTask]]:
    """Yield tasks of equal configuration and negative prompt together, in batches of at most `size`.

    At most `LOOKAHEAD` tasks are held back until others can join them.
    """
    groups: dict[tuple[NullTTAConfig, str], list[RowTask]] = {}
    for task in pending:
        alike = (task.request.settings.config, task.request.negative_prompt)
        group = groups.setdefault(alike, [])
        group.append(task)
        if len(group) == size:
            yield groups.pop(alike)
        elif sum(map(len, groups.values())) > LOOKAHEAD:
            yield groups.pop(next(iter(groups)))
    yield from groups.values()


def require_known_columns(rows: Iterable[TableRow]) -> None:
    """Check the columns of a table.

    Raises:
        InvalidValue: if there is an unknown one, or none of prompts.
    """
    seen: dict[str, int] = {}  # column -> its first row
    for row in rows:
        for column in row.cells:
            seen.setdefault(column, row.number)
    for column in (column for column in seen if column not in COLUMNS):
        near = get_close_matches(str(column), COLUMNS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InvalidValue(
            f"unknown column '{column}' in row {seen[column]}: {hint}the columns are {', '.join(COLUMNS[:4])} and "
            "the settings, as in num_inference_steps"
        )
    if seen and "prompt" not in seen:
        raise InvalidValue("there is no column 'prompt'")


def _place(source: str | None) -> str | None:
    """Return the real path of a directory or file, and any other source unchanged."""
    path = Path("" if source is None else absolute(source))
    return str(path.resolve()) if path.is_absolute() else source


def _id(row: TableRow) -> str:
    if row.fault:
        raise InvalidValue(row.fault)
    given = row.cells.get("id", row.number)
    if type(given) not in (str, int) or not str(given).strip():
        raise InvalidValue(f"its id must be text or a whole number, not {given!r}")
    return str(given)


def _config(shared: RunSettings, own: Mapping[str, Any]) -> NullTTAConfig:
    """Return the configuration of a row whose own cells override what was given for all rows."""
    config = replace(shared.config, **own)
    refuse_without_effect(config, shared.config, shared.method, started=shared.start is not None)
    return config


def _request(
    row: TableRow, name: str, settings: RunSettings, common: Mapping[str, Any],
    config: Callable[[Mapping[str, Any]], NullTTAConfig],
) -> AlignRequest:  # fmt: skip
    cells = {"prompt": "", **common, **row.cells}
    for column in ("prompt", "negative_prompt"):
        if not isinstance(cells[column], str):
            raise InvalidValue(f"must be text, not {cells[column]!r}", field=column)
    require_text(name, "its id")
    seed = _without_float(cells["seed"])
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InvalidValue(f"must be a whole number, 0 or more and below 2^63, not {seed!r}", field="seed")
    own = {column: _typed(column, cells[column]) for column in SETTINGS if column in cells}
    if own:
        settings = replace(settings, config=config(own))
    return AlignRequest(
        prompts=[cells["prompt"]], settings=settings, seed=seed,
        negative_prompt=cells["negative_prompt"],
    )  # fmt: skip


def _typed(column: str, value: Any) -> Any:
    """Return a cell in the type of its setting; where the configuration checks the type itself, unchanged."""
    hint = _HINTS[column]
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or any(type(part) not in (int, float) for part in value):
            raise InvalidValue(f"must be two numbers, as in [0, 1], not {value!r}", field=column)
        return tuple(_without_float(part) if int in get_args(hint) else part for part in value)
    if isinstance(value, list | dict):
        raise InvalidValue(f"must be a single value, not {value!r}", field=column)
    return _without_float(value) if hint is int else value


def _without_float(value: Any) -> Any:
    """Return 7.0, which is how pandas writes 7 in a column with gaps, as 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
