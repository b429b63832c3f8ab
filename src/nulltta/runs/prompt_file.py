"""Prompts from a file: one per line, or with negative prompts and seeds of their own as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nulltta.config.settings import LARGEST_SEED
from nulltta.errors import InvalidValue
from nulltta.prompts import require_prompt, require_text

_FIELDS = ("prompt", "negative_prompt", "seed")


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt with what is its own.

    Attributes:
        prompt: what the picture should show.
        negative_prompt: the null text to start from; None for that of the run.
        seed: the seed of the initial noise; None for that of the run.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None


def read_rows(given: Sequence[str], file: Path | None, argument: str | None = "prompts") -> list[PromptRow]:
    """Return the given prompts, then those of a file; blank lines and those that begin with # are skipped.

    A file whose name ends in .jsonl has one JSON object per line, with "prompt" and, where wanted, "negative_prompt"
    and "seed". Any other file has one prompt per line. `argument` is the argument that names the file, for errors.

    Raises:
        InvalidValue: if the file cannot be read, holds no prompt, or a line of it is malformed.
    """
    rows = [PromptRow(prompt) for prompt in given]
    if file is None:
        return rows
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InvalidValue(f"'{file}' cannot be read: {reason}", argument) from error
    lines = ["" if line.lstrip().startswith("#") else line for line in lines]
    if not any(line.strip() for line in lines):
        raise InvalidValue(f"'{file}' holds no prompts: write one per line", argument)
    structured = file.suffix == ".jsonl"
    for count, line in enumerate(lines, start=1):
        if text := line.strip():
            rows.append(_row(text, f"line {count} of '{file}'") if structured else PromptRow(text))
    return rows


def read_prompts(given: Sequence[str], file: Path | None, argument: str | None = "prompts") -> list[str]:
    """Return the given prompts, then those of a file, without what else its lines hold.

    Raises:
        InvalidValue: if the file cannot be read, holds no prompt, or a line of it is malformed.
    """
    return [row.prompt for row in read_rows(given, file, argument)]


def _row(text: str, where: str) -> PromptRow:
    try:
        fields: Any = json.loads(text)
    except ValueError as error:
        raise InvalidValue(f'{where} is not JSON, such as {{"prompt": "a cat", "seed": 3}}') from error
    if not isinstance(fields, dict) or "prompt" not in fields:
        raise InvalidValue(f'{where} is not an object with a "prompt"')
    if unknown := [name for name in fields if name not in _FIELDS]:
        raise InvalidValue(f"{where} has a field '{unknown[0]}': it may have {', '.join(_FIELDS)}")
    row = PromptRow(**fields)
    try:
        require_prompt(row.prompt)
        if row.negative_prompt is not None:
            require_text(row.negative_prompt, "a negative prompt")
    except InvalidValue as error:
        raise InvalidValue(f"{where}: {error}") from error
    if row.seed is not None and (type(row.seed) is not int or not 0 <= row.seed <= LARGEST_SEED):
        raise InvalidValue(f"{where}: seed must be a whole number, 0 to {LARGEST_SEED}, not {row.seed!r}")
    return row
