"""What each row of a table asks for, checked; free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

from nulltta.batch.rows import Row
from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.prompts import require_text
from nulltta.runs.request import AlignRequest, RunSettings

SETTINGS = tuple(field.name for field in fields(NullTTAConfig))
COLUMNS = ("id", "prompt", "negative_prompt", "seed", *SETTINGS)
_HINTS = get_type_hints(NullTTAConfig)


@dataclass(frozen=True)
class Task:
    """One row's picture: which row it is, and the request for its prompt alone."""

    row: int
    id: str
    request: AlignRequest

    @property
    def prompt(self) -> str:
        return self.request.prompts[0]

    @cached_property
    def name(self) -> str:
        """What its files are called: a hash of all that determines them, the id included.

        So nothing that a user wrote becomes a path, and a row that was changed is another one.
        """
        apart = {
            "id": self.id,
            "dtype": self.request.settings.dtype,
            "tiny_decoder": self.request.settings.tiny_decoder,
        }
        asked = {**apart, **self.request.arguments()}
        return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=10).hexdigest()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no picture."""

    row: int
    id: str | None
    reason: str


def tasks(
    rows: Sequence[Row],
    settings: RunSettings,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    negative_prompt: str = "",
) -> tuple[list[Task], list[Failure]]:
    """Each row's task, or what is wrong with it.

    Args:
        settings: what the rows share.
        config: the fields of the configuration that were given for all rows; those of a row come on top.
        seed, negative_prompt: those of rows that have none.

    Raises:
        NullTTAError: there is an unknown column, or none of prompts.
    """
    _require_known_columns(rows)
    common = {"seed": seed, "negative_prompt": negative_prompt, **(config or {})}
    found: list[Task] = []
    failures: list[Failure] = []
    first: dict[str, int] = {}  # id -> the row that has it
    for row in rows:
        name = None
        try:
            name = _id(row)
            if name in first:
                raise InvalidValue(f"its id is that of row {first[name]}: ids must differ")
            first[name] = row.number
            found.append(_task(row, name, settings, common))
        except (NullTTAError, OverflowError) as error:  # the latter: a number of hundreds of digits
            failures.append(Failure(row.number, name, str(error)))
    return found, failures


def batches(pending: Iterable[Task], size: int) -> list[list[Task]]:
    """Tasks of the same settings and negative prompt together, at most `size`, in order of their first."""
    groups: dict[tuple[NullTTAConfig, str], list[Task]] = {}
    for task in pending:
        groups.setdefault((task.request.settings.config, task.request.negative_prompt), []).append(task)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def _require_known_columns(rows: Iterable[Row]) -> None:
    seen = {column: row.number for row in reversed([*rows]) for column in row.cells}  # column -> its first row
    for column in (column for column in seen if column not in COLUMNS):
        near = get_close_matches(str(column), COLUMNS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InvalidValue(
            f"unknown column '{column}' in row {seen[column]}: {hint}columns are {', '.join(COLUMNS[:4])} and the "
            "settings, as in num_inference_steps"
        )
    if seen and "prompt" not in seen:
        raise InvalidValue("there is no column 'prompt'")


def _id(row: Row) -> str:
    if row.fault:
        raise InvalidValue(row.fault)
    given = row.cells.get("id", row.number)
    if type(given) not in (str, int) or not str(given).strip():
        raise InvalidValue(f"its id must be text or a whole number, not {given!r}")
    return str(given)


def _task(row: Row, name: str, settings: RunSettings, common: Mapping[str, Any]) -> Task:
    cells = {"prompt": "", **row.cells}
    cells = {"seed": common["seed"], "negative_prompt": common["negative_prompt"], **cells}
    for column in ("prompt", "negative_prompt"):
        if not isinstance(cells[column], str):
            raise InvalidValue(f"{column} must be text, not {cells[column]!r}")
    require_text(name, "its id")
    seed = _unfloated(cells["seed"])
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InvalidValue(f"a seed is a whole number, 0 or more and below 2^63, not {seed!r}")
    own = {column: _typed(column, cells[column]) for column in SETTINGS if column in cells}
    given = {column: value for column, value in common.items() if column in SETTINGS}
    config = NullTTAConfig.preset(settings.model, **{**given, **own})
    request = AlignRequest(
        prompts=[cells["prompt"]], settings=replace(settings, config=config), seed=seed,
        negative_prompt=cells["negative_prompt"],
    )  # fmt: skip
    return Task(row.number, name, request)


def _typed(column: str, value: Any) -> Any:
    """A cell as its setting's type, where the configuration itself does not ask."""
    hint = _HINTS[column]
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or any(type(part) not in (int, float) for part in value):
            raise InvalidValue(f"{column} is two numbers, as in [0, 1], not {value!r}")
        return tuple(_unfloated(part) if int in get_args(hint) else part for part in value)
    if isinstance(value, list | dict):
        raise InvalidValue(f"{column} is a single value, not {value!r}")
    return _unfloated(value) if hint is int else value


def _unfloated(value: Any) -> Any:
    """7.0, as pandas writes a whole number in a column with gaps, as 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
