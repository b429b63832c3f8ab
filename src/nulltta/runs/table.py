"""Reading a table of prompts from JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from nulltta.errors import InvalidValue, MissingExtra, NullTTAError, first_line

Cells = dict[str, Any]
TEXTS = ("id", "prompt", "negative_prompt", "caption", "text")
"""The columns whose cells are text even if they look like numbers."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        number: from 1; blank lines and the line of headings are not counted.
        cells: the cells that are not empty, by column.
        fault: why the row cannot be read; "" if it can.
    """

    number: int
    cells: Cells
    fault: str = ""


def read(path: Path) -> Iterator[TableRow]:
    """Yield the rows of a .jsonl, .csv or .parquet file, in order.

    Raises:
        InvalidValue: if the file cannot be read as what its suffix says, has no rows, or repeats a column.
        MissingExtra: if pyarrow is needed and is not installed.
    """
    if (reader := READERS.get(path.suffix.lower())) is None:
        raise InvalidValue(f"'{path}' is not a table of prompts: give a {', '.join(READERS)} file")
    row = None
    try:
        for row in reader(path):
            yield row
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, NullTTAError):
            raise
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else first_line(error)
        raise InvalidValue(f"cannot read '{path}': {reason}") from error
    if row is None:
        raise InvalidValue(f"'{path}' has no rows")


def _json_lines(path: Path) -> Iterator[TableRow]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file), start=1):
            yield _json_row(number, line)


def _json_row(number: int, line: str) -> TableRow:
    try:
        cells = json.loads(line, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        return TableRow(number, {}, str(error) if isinstance(error, NullTTAError) else f"it is not JSON: {error}")
    if not isinstance(cells, dict):
        return TableRow(number, {}, 'it is not a JSON object such as {"prompt": "a cat"}')
    return TableRow(number, {name: value for name, value in cells.items() if value is not None})


def _without_repetition(pairs: list[tuple[str, Any]]) -> Cells:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        raise InvalidValue("it names a column twice")
    return cells


def _csv(path: Path) -> Iterator[TableRow]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        columns = [name.strip() for name in next(lines, [])]
        if len(set(columns)) < len(columns):
            raise InvalidValue(f"'{path}' names a column twice: {', '.join(columns)}")
        for number, values in enumerate(filter(None, lines), start=1):
            if len(values) == len(columns):
                given = {name: text for name, text in zip(columns, values, strict=True) if text.strip()}
                yield TableRow(number, {name: text if name in TEXTS else _value(text) for name, text in given.items()})
            else:
                fault = f"it has {len(values)} cells for {len(columns)} columns: put text with a comma in double quotes"
                yield TableRow(number, {}, fault)


def _value(text: str) -> Any:
    """Parse a number, a word, true or false, or several of them: "5 25" -> [5, 25]."""
    try:
        return json.loads(text.lower())
    except (ValueError, RecursionError):
        words = text.split()
        return [_value(word) for word in words] if len(words) > 1 else text


def _parquet(path: Path) -> Iterator[TableRow]:
    arrow = require_pyarrow().lib
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            rows = (cells for part in file.iter_batches(1000) for cells in part.to_pylist())
            for number, cells in enumerate(rows, start=1):
                yield TableRow(number, {name: value for name, value in cells.items() if not _is_missing(value)})
    except arrow.ArrowException as error:
        raise InvalidValue(f"cannot read '{path}': {first_line(error)}") from error


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN, as pandas writes a missing number


def require_pyarrow() -> ModuleType:
    """Return pyarrow, which reads and writes Parquet.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtra("Parquet", "pyarrow", "batch") from error
    module: ModuleType = pyarrow
    return module


READERS: Mapping[str, Callable[[Path], Iterator[TableRow]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
