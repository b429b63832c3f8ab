"""Reading a table of prompts: JSON lines, CSV or Parquet to rows of cells, or the reason why a row is none."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from nulltta.errors import InvalidValue, NullTTAError

Cells = dict[str, Any]
TEXTS = ("id", "prompt", "negative_prompt")
"""The columns that hold text whatever it looks like."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, cells that are empty left out; or why it is none.

    Attributes:
        number: from 1; blank lines and the line of headings are not counted.
    """

    number: int
    cells: Cells
    fault: str = ""


def read(path: Path) -> list[Row]:
    """The rows of a .jsonl, .csv or .parquet file, in order.

    Raises:
        NullTTAError: the file cannot be read as what its name says, has no rows, or repeats a column.
    """
    if (reader := READERS.get(path.suffix.lower())) is None:
        raise InvalidValue(f"'{path}' is no table of prompts: give a {', '.join(READERS)} file")
    try:
        rows = list(reader(path))
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, NullTTAError):
            raise
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else _first_line(error)
        raise InvalidValue(f"cannot read '{path}': {reason}") from error
    if not rows:
        raise InvalidValue(f"'{path}' has no rows")
    return rows


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file), start=1):
            yield _json_row(number, line)


def _json_row(number: int, line: str) -> Row:
    try:
        cells = json.loads(line, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        return Row(number, {}, str(error) if isinstance(error, NullTTAError) else f"it is not JSON: {error}")
    if not isinstance(cells, dict):
        return Row(number, {}, 'it is no JSON object such as {"prompt": "a cat"}')
    return Row(number, {name: value for name, value in cells.items() if value is not None})


def _without_repetition(pairs: list[tuple[str, Any]]) -> Cells:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        raise InvalidValue("it names a column twice")
    return cells


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        columns = [name.strip() for name in next(lines, [])]
        if len(set(columns)) < len(columns):
            raise InvalidValue(f"'{path}' names a column twice: {', '.join(columns)}")
        for number, values in enumerate(filter(None, lines), start=1):
            if len(values) == len(columns):
                given = {name: text for name, text in zip(columns, values, strict=True) if text.strip()}
                yield Row(number, {name: text if name in TEXTS else _value(text) for name, text in given.items()})
            else:
                fault = f"it has {len(values)} cells for {len(columns)} columns: put text with a comma in double quotes"
                yield Row(number, {}, fault)


def _value(text: str) -> Any:
    """A number, a word, true or false, or several: "5 25" -> [5, 25]."""
    try:
        return json.loads(text.lower())
    except (ValueError, RecursionError):
        words = text.split()
        return [_value(word) for word in words] if len(words) > 1 else text


def _parquet(path: Path) -> Iterator[Row]:
    arrow = require_pyarrow().lib
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except arrow.ArrowException as error:
        raise InvalidValue(f"cannot read '{path}': {_first_line(error)}") from error
    for number, cells in enumerate(table.to_pylist(), start=1):
        yield Row(number, {name: value for name, value in cells.items() if not _is_missing(value)})


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN, as pandas writes a missing number


def require_pyarrow() -> ModuleType:
    """pyarrow, which reads and writes Parquet.

    Raises:
        NullTTAError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise InvalidValue("Parquet needs pyarrow: pip install 'nulltta[batch]'") from error
    module: ModuleType = pyarrow
    return module


def _first_line(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(reason).splitlines()[0]


READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
