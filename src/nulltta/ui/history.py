"""Finished runs as files: what the page shows of a run again, after a reload too, without keeping a tensor."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import threading
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nulltta.display.formatting import signed
from nulltta.evaluation.comparison import Score
from nulltta.images import png, to_pil
from nulltta.runs.align_writer import AlignWriter
from nulltta.runs.figures import upscaled
from nulltta.ui.plots import reward_curve
from nulltta.ui.run import FinishedRun
from nulltta.ui.wording import headline

MAX_RUNS = 24
"""The number of runs that are shown to a browser."""
MAX_KEPT = 256
"""The number of runs that the server keeps, of all visitors together."""
MAX_AGE = 23 * 3600.0
"""The seconds for which a run is kept; Gradio deletes what it has served after a day."""
SIDE, THUMBNAIL = 512, 192
"""The pixels to which small images are enlarged, and those of a thumbnail."""


@dataclass(frozen=True)
class ShownPicture:
    """What the page shows of one prompt and seed.

    Attributes:
        prompt: the prompt.
        seed: the seed of its noise.
        files: the paths of its files: "plain", "aligned", "thumbnail", and "null text" if there is one.
        scores: the scores by measure.
        headline: the result in one line.
        gain: the gain in the target.
        curve: the curve of the reward, as HTML.
        candidates: (path, reward) of the last candidates, best first.
    """

    prompt: str
    seed: int
    files: Mapping[str, str]
    scores: Mapping[str, Score]
    headline: str
    gain: float
    curve: str
    candidates: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class HistoryEntry:
    """A finished run.

    Attributes:
        name: names the run; nobody can guess it.
        browser: the id of the browser that asked for it.
        folder: the files that `nulltta align` would have written, and those that the page shows.
        pictures: one per prompt and seed.
        form: what the visitor had filled in, by the name of the control.
        said: the line at the end of the run.
        notes: what the visitor should know.
        diversity: by prompt, the Vendi scores of the plain and of the aligned pictures.
        since: when it was finished, by `time.monotonic`.
    """

    name: str
    browser: str
    folder: Path
    pictures: Sequence[ShownPicture]
    form: Mapping[str, Any]
    said: str
    notes: Sequence[str]
    diversity: Mapping[str, tuple[float, float]]
    since: float

    @property
    def record(self) -> str:
        """The path of result.json."""
        return str(self.folder / "run" / "result.json")

    @property
    def archive(self) -> str:
        """The path of a zip of all files."""
        return str(self.folder / "nulltta-run.zip")


class RunLibrary:
    """The runs of all visitors. The tabs of a browser share its runs.

    Args:
        root: the folder that runs are written to.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._entries, self._lock = root, dict[str, HistoryEntry](), threading.Lock()

    def keep(self, finished: FinishedRun, form: Mapping[str, Any], said: str, browser: str) -> HistoryEntry:
        """Write the files of a run, and delete those of runs beyond `MAX_KEPT` or older than `MAX_AGE`.

        Raises:
            InvalidValue: if a file cannot be written.
        """
        name = secrets.token_urlsafe(12)
        folder = self._root / f"run-{name}"
        writer = AlignWriter(finished.request, folder / "run")
        writer.add(finished.comparisons, {"sampling": finished.seconds})
        writer.close("finished" if finished.stopped_after is None else "interrupted")
        if (file := finished.request.prompts_file) is not None:  # which the recorded command reads
            rows = zip(finished.request.prompts, finished.request.seeds, strict=True)
            lines = (json.dumps({"prompt": prompt, "seed": seed}, ensure_ascii=False) for prompt, seed in rows)
            (folder / "run" / file.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        pictures = [_shown(finished, b, folder) for b in range(len(finished.comparisons))]
        entry = HistoryEntry(
            name, browser, folder, pictures, form, said, finished.notes, finished.diversity, time.monotonic()
        )
        _archive(folder / "run", Path(entry.archive))
        with self._lock:
            self._entries[name] = entry
            gone = [each for each, kept in self._entries.items() if _is_expired(kept)]
            oldest = [self._entries.pop(each) for each in {*gone, *list(self._entries)[:-MAX_KEPT]}]
        for old in oldest:
            shutil.rmtree(old.folder, ignore_errors=True)
        return entry

    def find(self, name: str) -> HistoryEntry | None:
        """Return the run of a name; None if it is not kept any longer."""
        entry = self._entries.get(name)
        return None if entry is None or _is_expired(entry) else entry

    def of_browser(self, browser: str) -> list[HistoryEntry]:
        """Return the last `MAX_RUNS` runs of a browser, the latest last."""
        with self._lock:
            found = [each for each in self._entries.values() if each.browser == browser and not _is_expired(each)]
        return found[-MAX_RUNS:]


def thumbnails(entries: Sequence[HistoryEntry]) -> list[tuple[str, str]]:
    """Return (path, caption) of each picture, the latest run first."""
    return [
        (picture.files["thumbnail"], signed(picture.gain)) for entry in reversed(entries) for picture in entry.pictures
    ]


def places(entries: Sequence[HistoryEntry]) -> list[tuple[str, int]]:
    """Return the name of the run of each thumbnail and the index of its picture."""
    return [(entry.name, b) for entry in reversed(entries) for b in range(len(entry.pictures))]


def _is_expired(entry: HistoryEntry) -> bool:
    return time.monotonic() - entry.since > MAX_AGE


def _shown(finished: FinishedRun, b: int, folder: Path) -> ShownPicture:
    """Write what the page shows of picture b."""
    comparison = finished.comparisons[b]
    target = next(iter(comparison.scores.values()))
    command = shlex.join(finished.request.of_prompt(b).command())
    note = {"prompt": comparison.prompt, "seed": str(comparison.seed), "command": command}
    files = {
        "plain": _save(comparison.plain, folder / f"{b}-plain.png", SIDE, note),
        "aligned": _save(comparison.aligned, folder / f"{b}-aligned.png", SIDE, note),
        "thumbnail": _thumbnail(comparison.aligned, folder / f"{b}-small.webp"),
    }
    several = len(finished.comparisons) > 1
    learnt = folder / "run" / (f"{b:03d}" if several else "") / "null-text.safetensors"
    files |= {"null text": str(learnt)} if learnt.is_file() else {}
    rewards, images = finished.candidate_rewards[b], finished.candidates[b]
    candidates = [
        (_thumbnail(images[k], folder / f"{b}-candidate-{k}.webp"), float(rewards[k]))
        for k in rewards.argsort(descending=True).tolist()
    ]
    curve = reward_curve(comparison.trace, (), target.plain, comparison.initial_rewards.tolist())
    return ShownPicture(
        comparison.prompt, comparison.seed, files, comparison.scores, headline(comparison), target.gain, curve,
        candidates,
    )  # fmt: skip


def _save(image: Tensor, path: Path, side: int, note: Mapping[str, str]) -> str:
    """Write an image, enlarged if it is small."""
    path.write_bytes(png(upscaled(to_pil(image[None])[0], side), note))
    return str(path)


def _thumbnail(image: Tensor, path: Path) -> str:
    picture = upscaled(to_pil(image[None])[0], THUMBNAIL)
    picture.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    picture.save(path, format="WEBP", quality=88)
    return str(path)


def _archive(folder: Path, path: Path) -> None:
    """Zip a folder. Its pictures are compressed already."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
