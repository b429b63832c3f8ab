"""Scoring pictures that lie in files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nulltta.rewards.compose import components, parts
from nulltta.scoring import score
from nulltta.types import NullTTAError, Reward


def read_image(path: Path) -> Tensor:
    """A picture's pixels (3, H, W) in [0, 1], upright, in RGB.

    Raises:
        NullTTAError: there is no such file, or it is no picture or cut short.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "there is no such file" if not path.exists() else "it is no picture, or is cut short"
        raise NullTTAError(f"cannot read image '{path}': {reason}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def read_prompts(table: Path, folder: Path) -> list[tuple[Path, str]]:
    """Pictures of a folder and their prompts from a CSV file with the columns `file` and `prompt`.

    Raises:
        NullTTAError: unreadable, without these columns, or a line lacks one; the line is named.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            if not {"file", "prompt"} <= set(rows.fieldnames or ()):
                raise NullTTAError(
                    f"'{table}' needs the columns file and prompt, not {', '.join(rows.fieldnames or ())}"
                )
            found = []
            for row in rows:
                if not (row["file"] or "").strip() or not (row["prompt"] or "").strip():
                    raise NullTTAError(f"'{table}' line {rows.line_num} lacks its file or its prompt")
                found.append((folder / row["file"].strip(), row["prompt"].strip()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NullTTAError(f"cannot read prompts from '{table}': {error}") from error
    if not found:
        raise NullTTAError(f"'{table}' lists no pictures")
    return found


@torch.no_grad()
def score_files(
    reward: Reward, pictures: Sequence[tuple[Path, str]], *, batch_size: int = 8
) -> Iterator[tuple[Path, str, dict[str, float]]]:
    """Each picture, its prompt and its scores by name, in order: the reward's, and its parts' if it has several.

    Neighbours of the same size share a batch.

    Raises:
        NullTTAError: a picture does not read, or the reward fails.
    """
    for start in range(0, len(pictures), batch_size):
        loaded = [(read_image(path), path, prompt) for path, prompt in pictures[start : start + batch_size]]
        for _, group in groupby(loaded, key=lambda item: item[0].shape):
            images, paths, prompts = zip(*group, strict=True)
            batch = torch.stack(images)
            scores = {reward.name: score(reward, batch, prompts)}
            if len(parts(reward)) > 1:
                scores |= components(reward, batch, prompts)
            for b, (path, prompt) in enumerate(zip(paths, prompts, strict=True)):
                yield path, prompt, {name: float(values[b]) for name, values in scores.items()}
