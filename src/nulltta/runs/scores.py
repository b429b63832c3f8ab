"""The work of `nulltta rewards score`: read files, score them, and write CSV when every score is known."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track

from nulltta.config import whole
from nulltta.config.settings import MOST
from nulltta.contracts import Reward
from nulltta.display import terminal
from nulltta.errors import InvalidValue, blaming
from nulltta.files import as_error, atomic
from nulltta.prompts import require_prompt, require_text
from nulltta.rewards.expression import with_source
from nulltta.rewards.image_files import read_prompts, score_files
from nulltta.runs.folder import refuse_unwritable
from nulltta.runs.loading import load_reward, usable_device
from nulltta.scoring import require_pictures

Scored = tuple[str, str, Mapping[str, float]]
"""A file, its prompt, and its scores by name."""


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """What `nulltta rewards score` is asked for.

    Attributes:
        images: the pictures, or with `table` the one folder that they are in.
        rewards: names or expressions.
        prompt: what all pictures should show.
        table: a CSV file with the columns file and prompt, instead of `prompt`.
        reward_source: where the weights of a single reward given by name are.
        out: the CSV file to write; None for standard output.
        batch_size: how many pictures are scored at a time.
        device: as in `ModelSettings`.
        dtype: the name of a torch type; None for the reward's own.

    Raises:
        InvalidValue: if `batch_size` is not 1 to `MOST`.
    """

    images: Sequence[Path]
    rewards: Sequence[str]
    prompt: str | None = None
    table: Path | None = None
    reward_source: str | None = None
    out: Path | None = None
    batch_size: int = 8
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        whole(self, "batch_size", at_least=1, at_most=MOST)


def run(request: ScoreRequest) -> None:
    """Score pictures. Nothing is written before everything is scored.

    Raises:
        InvalidValue: if an argument is wrong, a file cannot be read, or the output cannot be written.
        LoadError: if a reward does not load.
        RewardError: if a reward fails.
    """
    notes = terminal.notes()
    pictures = _pictures(request)
    if request.out is not None:
        with blaming("out"):
            refuse_unwritable(request.out.parent)
        if request.out.is_dir():
            raise InvalidValue(f"'{request.out}' is a folder: give a file", "out")
        if any(request.out.exists() and request.out.samefile(picture) for picture, _ in pictures):
            raise InvalidValue(f"'{request.out}' is one of the pictures: give another file", "out")
    with notes.status("loading rewards"):
        loaded = _load(request)
    scored = track(
        score_files(loaded, pictures, batch_size=request.batch_size), "scoring", len(pictures),
        console=notes, transient=True, disable=not notes.is_terminal,
    )  # fmt: skip
    rows = [(path.name if request.table else str(path), prompt, scores) for path, prompt, scores in scored]
    _write(rows, request.out)


def _pictures(request: ScoreRequest) -> list[tuple[Path, str]]:
    """Return each picture with its prompt."""
    if request.table is not None:
        if request.prompt is not None:
            raise InvalidValue("is for all pictures: give it or a CSV file (table), not both", field="prompt")
        if len(request.images) != 1 or not request.images[0].is_dir():
            given = " ".join(map(str, request.images))
            raise InvalidValue(f"goes with one folder of pictures, not '{given}'", field="table")
        with blaming("table"):
            return read_prompts(request.table, request.images[0])
    prompt = request.prompt
    if prompt is None:
        raise InvalidValue("is missing: say what the pictures should show, or give --table", "prompt")
    require_prompt(prompt)
    for image in request.images:
        require_text(str(image), "a file's name")
        if image.is_dir():
            raise InvalidValue(f"'{image}' is a folder: give its pictures, or a CSV file with their prompts (table)")
        if not image.exists():
            raise InvalidValue(f"cannot read image '{image}': there is no such file")
    return [(image, prompt) for image in request.images]


def _load(request: ScoreRequest) -> list[Reward]:
    """Load the rewards."""
    if request.reward_source is not None and len(request.rewards) > 1:
        raise InvalidValue("goes with one reward: write the source of each, as in clipscore:org/model", "reward_source")
    device, dtype = usable_device(request.device), None if request.dtype is None else getattr(torch, request.dtype)
    with blaming("reward"):
        loaded = [load_reward(with_source(name, request.reward_source), device, dtype) for name in request.rewards]
        for reward in loaded:
            require_pictures(reward, "a file")
    return loaded


def _write(rows: Sequence[Scored], out: Path | None) -> None:
    """Write CSV: the file, the prompt and one column per score, to seven digits."""
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
