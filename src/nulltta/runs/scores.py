"""What `nulltta rewards score` does: files are read, scored, and their scores written as CSV when all are known."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue
from nulltta.files import as_error, atomic
from nulltta.prompts import require_text
from nulltta.rewards.expression import with_source
from nulltta.rewards.image_files import read_prompts, score_files
from nulltta.runs.folder import refuse_unwritable
from nulltta.runs.loading import load_reward, usable_device

Scored = tuple[str, str, Mapping[str, float]]
"""(file, prompt, score by name)."""


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """All that `nulltta rewards score` is asked for."""

    images: Sequence[Path]
    rewards: Sequence[str]
    prompt: str | None = None
    prompts: Path | None = None
    reward_source: str | None = None
    out: Path | None = None
    batch_size: int = 8
    device: str | None = None
    dtype: str | None = None


def run(asked: ScoreRequest) -> None:
    """Score what is asked for; nothing is written before everything is scored.

    Raises:
        NullTTAError: an argument is wrong, a file does not read or cannot be written, a reward does not load or fails.
    """
    notes = Console(stderr=True)
    pictures = _pictures(asked)
    if asked.out is not None:
        refuse_unwritable(asked.out.parent)
        if asked.out.is_dir():
            raise InvalidValue(f"cannot write to '{asked.out}': it is a folder")
    with notes.status("loading rewards"):
        loaded = _load(asked)
    scored = track(
        score_files(loaded, pictures, batch_size=asked.batch_size), "scoring", len(pictures),
        console=notes, transient=True, disable=not notes.is_terminal,
    )  # fmt: skip
    rows = [(path.name if asked.prompts else str(path), prompt, scores) for path, prompt, scores in scored]
    _write(rows, asked.out)


def _pictures(asked: ScoreRequest) -> list[tuple[Path, str]]:
    """Each picture and its prompt."""
    if asked.batch_size < 1:
        raise InvalidValue(f"the batch size must be 1 or more, not {asked.batch_size}")
    if asked.prompts is not None:
        if asked.prompt is not None:
            raise InvalidValue("give --prompt, one for all pictures, or --prompts, a CSV file, not both")
        if len(asked.images) != 1 or not asked.images[0].is_dir():
            raise InvalidValue(f"--prompts goes with one folder of pictures, not '{' '.join(map(str, asked.images))}'")
        return read_prompts(asked.prompts, asked.images[0])
    if asked.prompt is None or not asked.prompt.strip():
        raise InvalidValue("no prompt: say with --prompt what the pictures should show")
    require_text(asked.prompt, "a prompt")
    for image in asked.images:
        require_text(str(image), "a file's name")
        if image.is_dir():
            raise InvalidValue(f"'{image}' is a folder: give its pictures, or a prompt for each with --prompts CSV")
        if not image.exists():
            raise InvalidValue(f"cannot read image '{image}': there is no such file")
    return [(image, asked.prompt) for image in asked.images]


def _load(asked: ScoreRequest) -> list[Reward]:
    if asked.reward_source is not None and len(asked.rewards) > 1:
        raise InvalidValue("--reward-source goes with one --reward: write a source each, as in clipscore:org/model")
    device, dtype = usable_device(asked.device), None if asked.dtype is None else getattr(torch, asked.dtype)
    return [load_reward(with_source(name, asked.reward_source), device, dtype) for name in asked.rewards]


def _write(rows: Sequence[Scored], out: Path | None) -> None:
    """CSV: file, prompt and a column a score, to seven digits."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "prompt", *rows[0][2]])
    table.writerows([file, prompt, *(f"{score:.7g}" for score in scores.values())] for file, prompt, scores in rows)
    if out is None:
        sys.stdout.write(text.getvalue())
        return
    with as_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic(out) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
