"""Training prompts from wherever people keep them: a text file, a table, or a dataset of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nulltta import hub
from nulltta.errors import InvalidValue, MissingExtra, first_line
from nulltta.prompts import require_prompt
from nulltta.runs.prompt_file import read_prompts
from nulltta.runs.table import READERS, read

COLUMNS = ("prompt", "caption", "text")
"""The columns of a table in which prompts are looked for, in this order."""
OTHERS = (".json", ".tsv", ".xlsx", ".gz", ".zip", ".arrow")
"""Files that hold prompts otherwise than one per line, and are not read."""


def training_prompts(source: str, argument: str = "prompts") -> list[str]:
    """Return the prompts that a source names.

    Args:
        source: a .jsonl, .csv or .parquet file with a column "prompt", "caption" or "text"; a folder of such files or a
            dataset of the hub, as in "user/dataset", whose split "train" is read; or any other file, with one prompt
            per line.
        argument: the argument that names the source, for errors.

    Raises:
        InvalidValue: if it cannot be read, has none of the columns, or holds a row without a prompt.
        MissingExtra: if a package that reads it is not installed.
    """
    path, suffix = Path(source), Path(source).suffix.lower()
    try:
        is_folder, exists = bool(source) and path.is_dir(), path.exists()
    except OSError as error:
        raise InvalidValue(f"'{source}' cannot be read: {error.strerror}", argument) from error
    if is_folder or (hub.is_hub_id(source) and suffix not in (".txt", *READERS, *OTHERS) and not exists):
        return _of_dataset(source, argument)
    if suffix in OTHERS:
        raise InvalidValue(f"'{source}' is of a kind that is not read: give a {', '.join(READERS)} file", argument)
    if suffix not in READERS:
        return read_prompts([], path, argument)
    try:
        rows = list(read(path))
    except InvalidValue as error:
        raise InvalidValue(str(error), argument) from error
    for row in rows:
        if row.fault:
            raise InvalidValue(f"row {row.number} of '{source}' cannot be read: {row.fault}", argument)
    column = _column(source, {name for row in rows for name in row.cells}, argument)
    return _checked(source, [row.cells.get(column) for row in rows], column, argument)


def _of_dataset(source: str, argument: str) -> list[str]:
    """Return the prompts of a dataset's split "train", which `datasets` loads without running code of the dataset's."""
    try:
        import datasets
        from huggingface_hub import constants
    except ImportError as error:
        raise MissingExtra(f"the dataset '{source}'", "datasets", "datasets") from error
    if not (Path(source).is_dir() or constants.HF_HUB_OFFLINE or hub.reachable()):
        raise InvalidValue(f"there is no file '{source}', and the hub does not answer (offline)", argument)
    try:
        table = datasets.load_dataset(source, split="train")
    except Exception as error:  # whatever a hub, a builder or a damaged file leads it to
        raise InvalidValue(f"'{source}' does not load as a dataset: {first_line(error)}", argument) from error
    column = _column(source, table.column_names, argument)
    return _checked(source, list(table[column]), column, argument)


def _column(source: str, found: Collection[str], argument: str) -> str:
    """Return the first of `COLUMNS` among those that were found."""
    for name in COLUMNS:
        if name in found:
            return name
    has = ", ".join(sorted(found)) or "none at all"
    raise InvalidValue(f"'{source}' has none of the columns {', '.join(COLUMNS)}: it has {has}", argument)


def _checked(source: str, cells: Sequence[Any], column: str, argument: str) -> list[str]:
    """Return the cells of a column, each of which must be a prompt."""
    for number, prompt in enumerate(cells, start=1):
        try:
            require_prompt(prompt)
        except InvalidValue as error:
            raise InvalidValue(f"row {number} of '{source}', column '{column}': {error}", argument) from error
    return list(cells)
