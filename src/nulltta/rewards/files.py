"""Scoring pictures that lie in files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue
from nulltta.rewards.compose import parts
from nulltta.scoring import score

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""What a folder's pictures are told by; a file that is named is read whatever it is called."""


def read_image(path: Path) -> Tensor:
    """A picture's pixels (3, H, W) in [0, 1], upright, in RGB; of an animation, its first frame.

    Raises:
        NullTTAError: there is no such file, it is no picture or cut short, or its pixels are not of 8 bits.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError as error:
        raise InvalidValue(f"cannot read image '{path}': there is no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is no picture, or is cut short"
        raise InvalidValue(f"cannot read image '{path}': {reason}") from error
    if deep:  # PIL cuts them off at 255
        raise InvalidValue(f"cannot read image '{path}': its pixels have more than 8 bits: convert it to 8")
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def read_prompts(table: Path, folder: Path) -> list[tuple[Path, str]]:
    """Pictures of a folder and their prompts from a CSV file with the columns `file` and `prompt`, in its order.

    A file is a name inside the folder, never a path; every picture of the folder has a line of its own.

    Raises:
        NullTTAError: the table is unreadable or lacks a column; a line, which is named, lacks its file or prompt,
            has cells too many, repeats a file or asks for one that is not in the folder; a picture has no line.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines, restval="")
            if not {"file", "prompt"} <= set(rows.fieldnames or ()):
                raise InvalidValue(
                    f"'{table}' needs the columns file and prompt, not {', '.join(rows.fieldnames or ()) or 'none'}"
                )
            found: dict[str, str] = {}
            for row in rows:
                if fault := _fault(row, folder, found):
                    raise InvalidValue(f"'{table}' line {rows.line_num} {fault}")
                found[row["file"].strip()] = row["prompt"].strip()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", error)
        raise InvalidValue(f"cannot read prompts from '{table}': {reason}") from error
    if not found:
        raise InvalidValue(f"'{table}' lists no pictures")
    if without := sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name not in found):
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise InvalidValue(f"'{table}' has no prompt for '{without[0]}'{more} in '{folder}'")
    return [(folder / name, prompt) for name, prompt in found.items()]


@torch.no_grad()
def score_files(
    rewards: Sequence[Reward], pictures: Sequence[tuple[Path, str]], *, batch_size: int = 8
) -> Iterator[tuple[Path, str, dict[str, float]]]:
    """Each picture, its prompt and its scores by name, in order: each reward's, then its parts' if it is composed.

    Neighbours of the same size share a batch.

    Raises:
        NullTTAError: a picture does not read, or a reward fails.
    """
    measures = {name: part for reward in rewards for name, part in {reward.name: reward, **parts(reward)}.items()}
    for start in range(0, len(pictures), batch_size):
        loaded = [(read_image(path), path, prompt) for path, prompt in pictures[start : start + batch_size]]
        for _, group in groupby(loaded, key=lambda item: item[0].shape):
            images, paths, prompts = zip(*group, strict=True)
            batch = torch.stack(images)
            scores = {name: score(measure, batch, prompts) for name, measure in measures.items()}
            for b, (path, prompt) in enumerate(zip(paths, prompts, strict=True)):
                yield path, prompt, {name: float(values[b]) for name, values in scores.items()}


def _fault(row: dict[str, str], folder: Path, before: dict[str, str]) -> str:
    """What is wrong with a line of the table; "" if nothing is."""
    name, prompt = row["file"].strip(), row["prompt"].strip()
    if not name or not prompt:
        return "lacks its file or its prompt"
    if None in row:  # where csv puts the cells that no column names
        return "has more cells than there are columns: put a prompt that holds a comma in double quotes"
    if name == ".." or not PurePosixPath(name).name == PureWindowsPath(name).name == name:
        return f"asks for '{name}': give the name of a file in the folder, not a path"
    if name in before:
        return f"repeats '{name}'"
    return "" if (folder / name).is_file() else f"asks for '{name}', which is not in '{folder}'"
