"""The folder of a replay: pictures, a grid of all of them, and result.json, which lists what is finished."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue
from nulltta.evaluation.comparison import Score
from nulltta.files import as_error
from nulltta.images import save_png, to_pil
from nulltta.null_text.exact import SAMPLING
from nulltta.null_text.value import NullText
from nulltta.runs import record
from nulltta.runs.figures import save_figure
from nulltta.runs.folder import Status
from nulltta.runs.grid import Cell, grid_figure
from nulltta.runs.interrupts import interrupts_deferred
from nulltta.runs.request import ReplayRequest

ROUNDING = 1e-4  # of a pixel's range: what another batch size or number of threads may change in float32


@dataclass(frozen=True)
class Sample:
    """A replayed picture (3, H, W) in [0, 1], the plain one of the same seed if it was asked for, and their scores."""

    prompt: str
    seed: int | None  # None for the recorded noise
    replayed: Tensor
    plain: Tensor | None
    scores: Mapping[str, Score]


class ReplayOutput:
    """Writes 000.png, 000-plain.png, 001.png, ... and, after each batch, result.json.

    Every file appears whole or not at all.

    Attributes:
        finished: the samples that have been written.
    """

    def __init__(self, asked: ReplayRequest, null_text: NullText, config: NullTTAConfig) -> None:
        self.asked, self.folder = asked, asked.out
        self.finished: list[Sample] = []
        learnt = {"prompt": null_text.prompt, "steps": len(null_text.timesteps), **null_text.about}
        self._record: dict[str, Any] = {
            "format": record.FORMAT, "command": shlex.join(asked.command()), "null_text": learnt,
            "config": {name: getattr(config, name) for name in SAMPLING},
            "device": asked.settings.device, "dtype": asked.settings.dtype, "versions": record.versions(),
        }  # fmt: skip
        if asked.exact:
            self._record["max_difference"] = None
        self._results: list[dict[str, Any]] = []
        self._image = null_text.image

    def add(self, samples: Sequence[Sample], seconds: float) -> None:
        """Write a finished batch; `seconds` is the time since the run began."""
        if self.asked.exact and self._image is not None:
            self._record["max_difference"] = difference(samples[0].replayed, self._image)
        with interrupts_deferred(), as_error(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._results += [self._write(sample, len(self.finished) + i) for i, sample in enumerate(samples)]
            self.finished += samples
            self._record["seconds"] = seconds
            self._save("running")

    def close(self, status: Status) -> None:
        """Write the grid and the final status."""
        with interrupts_deferred(), as_error(self.folder):
            save_figure(grid_figure([_cell(sample) for sample in self.finished]), self.folder / "grid.png")
            self._save(status)

    def _write(self, sample: Sample, index: int) -> dict[str, Any]:
        seeds = None if sample.seed is None else str(sample.seed)
        command = replace(self.asked, prompts=[] if self.asked.exact else [sample.prompt], seeds=seeds).command()
        note = {"prompt": sample.prompt, "seed": seeds or "recorded", "command": shlex.join(command)}
        files = {}
        for name, image, ending in (("replay", sample.replayed, ""), ("plain", sample.plain, "-plain")):
            if image is not None:
                files[name] = f"{index:03d}{ending}.png"
                save_png(to_pil(image[None])[0], self.folder / files[name], note)
        scores = {name: {"plain": pair.plain, "replay": pair.aligned} for name, pair in sample.scores.items()}
        return {"prompt": sample.prompt, "seed": sample.seed, "files": files, "scores": scores}

    def _save(self, status: str) -> None:
        record.save({**self._record, "status": status, "results": self._results}, self.folder / "result.json")


def difference(replayed: Tensor, recorded: Tensor) -> float:
    """Return the largest difference of any pixel, in units of the range of a pixel.

    Raises:
        InvalidValue: if the images have different shapes.
    """
    if replayed.shape != recorded.shape:
        raise InvalidValue(
            f"the recorded image has shape {tuple(recorded.shape)}, the replayed one {tuple(replayed.shape)}"
        )
    return float((replayed - recorded.to(replayed)).abs().max())


def _cell(sample: Sample) -> Cell:
    label = "recorded noise" if sample.seed is None else f"seed {sample.seed}"
    pictures = [(name, to_pil(image[None])[0]) for name, image in (("plain", sample.plain), ("replay", sample.replayed))
                if image is not None]  # fmt: skip
    return Cell(sample.prompt, label, dict(pictures))


def exactness(sample: Sample, null_text: NullText) -> str:
    """Say in words how close an exact replay came to the recorded image."""
    if null_text.image is None:
        return "the file holds no image to compare with"
    off = difference(sample.replayed, null_text.image)
    if off == 0:
        return "the aligned image again, bit for bit"
    if off <= ROUNDING:
        return f"the aligned image again, up to rounding: no pixel differs by more than {off:.1e} of its range"
    return f"not the aligned image to {ROUNDING:g}: a pixel differs by {off:.1e} of its range (another device or type?)"
