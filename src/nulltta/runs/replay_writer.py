"""Write the results of `nulltta replay`: pictures, a grid of all of them, and result.json."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue
from nulltta.evaluation.comparison import Score
from nulltta.images import save_png, to_pil
from nulltta.null_text.exact import sampling_settings
from nulltta.null_text.loading import AnyNullText
from nulltta.runs import record
from nulltta.runs.figures import save_figure
from nulltta.runs.folder import RunFolder, Status
from nulltta.runs.grid import Cell, grid_figure
from nulltta.runs.request import ReplayRequest

ROUNDING = 1e-4
"""The part of a pixel's range that another batch size or number of threads may change in float32."""


@dataclass(frozen=True)
class Sample:
    """A replayed picture with its scores.

    Attributes:
        prompt: what it shows.
        seed: the seed of its noise; None for the recorded noise.
        replayed: (3, H, W) in [0, 1].
        plain: the plain picture of the same seed, if it was asked for.
        scores: the scores of both by measure; empty without a plain picture.
    """

    prompt: str
    seed: int | None
    replayed: Tensor
    plain: Tensor | None
    scores: Mapping[str, Score]


class ReplayWriter:
    """Writes the results of `replay`: 000.png, 000-plain.png, 001.png, ... and a grid of all of them.

    Args:
        request: what the run was asked for.
        null_text: the null text that is replayed.
        config: the settings that it is replayed with.
        expected: the number of pictures of the whole run, not counting plain ones.

    Attributes:
        folder: the folder with its result.json.
        finished: the samples that have been written.

    Raises:
        InvalidValue: if the folder cannot be written.
    """

    def __init__(self, request: ReplayRequest, null_text: AnyNullText, config: NullTTAConfig, expected: int) -> None:
        learnt = {"prompt": null_text.prompt, "steps": len(null_text.timesteps), **null_text.about}
        about: dict[str, Any] = {
            "format": record.FORMAT, "command": shlex.join(request.command()), "null_text": learnt,
            "config": sampling_settings(config),
            "device": request.settings.device, "dtype": request.settings.dtype, "versions": record.versions(),
        }  # fmt: skip
        if request.exact:
            about["max_difference"] = None
        self.folder = RunFolder(request.out, about, expected, "pictures")
        self.finished: list[Sample] = []
        self._request, self._image = request, null_text.image

    def add(self, samples: Sequence[Sample], seconds: float) -> None:
        """Write a finished batch; `seconds` is the time since the run began.

        Raises:
            InvalidValue: if a file cannot be written, or an exact replay has another shape than the recorded image.
        """
        with self.folder.writing("running") as result:
            if self._request.exact and self._image is not None:
                result["max_difference"] = difference(samples[0].replayed, self._image)
            entries = [self._write(sample, len(self.finished) + i) for i, sample in enumerate(samples)]
            self.finished += samples
            result["results"] += entries
            result["seconds"] = seconds

    def close(self, status: Status) -> None:
        """Write the grid and the final status; nothing if no picture was finished.

        Raises:
            InvalidValue: if a file cannot be written.
        """
        if not self.finished:
            return
        with self.folder.writing(status):
            save_figure(grid_figure([_cell(sample) for sample in self.finished]), self.folder.path / "grid.png")

    def _write(self, sample: Sample, index: int) -> dict[str, Any]:
        """Write the pictures of one sample and return its entry in result.json."""
        seeds = None if sample.seed is None else str(sample.seed)
        command = replace(self._request, prompts=[] if self._request.exact else [sample.prompt], seeds=seeds).command()
        note = {"prompt": sample.prompt, "seed": seeds or "recorded", "command": shlex.join(command)}
        files = {}
        for name, image, ending in (("replay", sample.replayed, ""), ("plain", sample.plain, "-plain")):
            if image is not None:
                files[name] = f"{index:03d}{ending}.png"
                save_png(to_pil(image[None])[0], self.folder.path / files[name], note)
        scores = {name: {"plain": pair.plain, "replay": pair.aligned} for name, pair in sample.scores.items()}
        return {"prompt": sample.prompt, "seed": sample.seed, "files": files, "scores": scores}


def difference(replayed: Tensor, recorded: Tensor) -> float:
    """Return the largest difference between two images at any pixel, in units of a pixel's range.

    Raises:
        InvalidValue: if the images have different shapes.
    """
    if replayed.shape != recorded.shape:
        raise InvalidValue(
            f"the recorded image has shape {tuple(recorded.shape)}, the replayed one {tuple(replayed.shape)}"
        )
    return float((replayed - recorded.to(replayed)).abs().max())


def _cell(sample: Sample) -> Cell:
    """Return the column of a sample in the grid."""
    label = "recorded noise" if sample.seed is None else f"seed {sample.seed}"
    pictures = [(name, to_pil(image[None])[0]) for name, image in (("plain", sample.plain), ("replay", sample.replayed))
                if image is not None]  # fmt: skip
    return Cell(sample.prompt, label, dict(pictures))


def exactness(sample: Sample, null_text: AnyNullText) -> str:
    """Say in words how close an exact replay came to the recorded image."""
    if null_text.image is None:
        return "the file holds no image to compare with"
    off = difference(sample.replayed, null_text.image)
    if off == 0:
        return "the aligned image again, bit for bit"
    if off <= ROUNDING:
        return f"the aligned image again, up to rounding: no pixel differs by more than {off:.1e} of its range"
    return f"not the aligned image to {ROUNDING:g}: a pixel differs by {off:.1e} of its range (another device or type?)"
