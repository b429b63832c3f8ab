"""Scoring images stored in files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue, first_line
from nulltta.images import opaque
from nulltta.rewards.compose import parts
from nulltta.scoring import score

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""The suffixes by which the images of a folder are recognised. A file given by name may have any suffix."""


def read_image(path: Path) -> Tensor:
    """Read an image as RGB pixels (3, H, W) in [0, 1], turned upright; of an animation, read the first frame.

    What is transparent is read as white.

    Raises:
        InvalidValue: if the file does not exist, is not an image, is truncated, or has more than 8 bits per channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            pixels = np.array(opaque(ImageOps.exif_transpose(image)))
    except FileNotFoundError as error:
        raise InvalidValue(f"cannot read image '{path}': there is no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is not an image, or is truncated"
        raise InvalidValue(f"cannot read image '{path}': {reason}") from error
    if deep:  # PIL would clip the values at 255
        raise InvalidValue(f"cannot read image '{path}': it has more than 8 bits per channel; convert it to 8")
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def read_prompts(table: Path, folder: Path) -> list[tuple[Path, str]]:
    """Read the images of a folder and their prompts from a CSV file with the columns `file` and `prompt`.

    A file is given by its name inside the folder, never by a path, and every image of the folder has one line.

    Returns:
        (path, prompt) for each line, in the order of the table.

    Raises:
        InvalidValue: if the table is unreadable or lacks a column; if a line lacks its file or prompt, has too many
            cells, repeats a file or names one that is not in the folder; or if an image of the folder has no line.
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
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else first_line(error)
        raise InvalidValue(f"cannot read prompts from '{table}': {reason}") from error
    if not found:
        raise InvalidValue(f"'{table}' does not list any images")
    if without := sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name not in found):
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise InvalidValue(f"'{table}' has no prompt for '{without[0]}'{more} in '{folder}'")
    return [(folder / name, prompt) for name, prompt in found.items()]


@torch.no_grad()
def score_files(
    rewards: Sequence[Reward], images: Sequence[tuple[Path, str]], *, batch_size: int = 8
) -> Iterator[tuple[Path, str, dict[str, float]]]:
    """Score images with one or more rewards; neighbouring images of the same size share a batch.

    Args:
        rewards: the rewards, several at once.
        images: (path, prompt) for each image.
        batch_size: how many images are read and scored at a time.

    Yields:
        For each image, in order: its path, its prompt, and its scores by the name of the reward, followed by those
        of the reward's components if it is composed.

    Raises:
        InvalidValue: if an image cannot be read.
        RewardError: if a reward fails.
    """
    measures = {name: part for reward in rewards for name, part in {reward.name: reward, **parts(reward)}.items()}
    for start in range(0, len(images), batch_size):
        loaded = [(read_image(path), path, prompt) for path, prompt in images[start : start + batch_size]]
        for _, group in groupby(loaded, key=lambda item: item[0].shape):
            pixels, paths, prompts = zip(*group, strict=True)
            batch = torch.stack(pixels)
            scores = {name: score(measure, batch, prompts) for name, measure in measures.items()}
            for b, (path, prompt) in enumerate(zip(paths, prompts, strict=True)):
                yield path, prompt, {name: float(values[b]) for name, values in scores.items()}


def _fault(row: dict[str, str], folder: Path, before: dict[str, str]) -> str:
    """Say what is wrong with a line of the table; return "" if nothing is."""
    name, prompt = row["file"].strip(), row["prompt"].strip()
    if not name or not prompt:
        return "lacks its file or its prompt"
    if None in row:  # the key under which csv puts surplus cells
        return "has more cells than there are columns: put a prompt that contains a comma in double quotes"
    if name == ".." or not PurePosixPath(name).name == PureWindowsPath(name).name == name:
        return f"asks for '{name}': give the name of a file in the folder, not a path"
    if name in before:
        return f"repeats '{name}'"
    return "" if (folder / name).is_file() else f"asks for '{name}', which is not in '{folder}'"
