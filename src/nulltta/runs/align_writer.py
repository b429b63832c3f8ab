"""Write the results of `nulltta align`: pictures of each prompt, a contact sheet and result.json."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL.Image import Image

from nulltta.evaluation.comparison import Comparison, Score
from nulltta.evaluation.diagnosis import FEWEST, Diagnosis, diagnosis_of
from nulltta.evaluation.evidence import Picture
from nulltta.images import save_image, save_png, save_video, to_pil
from nulltta.runs import figures, record
from nulltta.runs.folder import RunFolder, Status
from nulltta.runs.request import AlignRequest


class AlignWriter:
    """Writes the results of `align`: those of one prompt into the folder itself, those of several into 000, 001, ...

    Args:
        request: what the run was asked for.
        path: the folder to write to; that of the request if None.
        repeatable: whether the request's commands make the pictures again, so that they are written.

    Attributes:
        folder: the folder with its result.json.
        finished: the pictures whose files have been written, by their titles, with their scores.
        unit: what there is one result for, in the plural: "pictures" where a prompt is drawn several times.
        evidence: what the diagnosis is drawn from, which the caller adds.
        diagnosis: drawn and written with the final status; None before, and if there are too few prompts for one.

    Raises:
        InvalidValue: if the folder cannot be written.
    """

    def __init__(self, request: AlignRequest, path: Path | None = None, *, repeatable: bool = True) -> None:
        about = {**record.of_request(request), "seconds": {}, "unfinished": list(request.prompts)}
        about |= {} if repeatable and request.is_one_command else {"command": None}
        self._repeatable = repeatable
        self._shown = ("plain",) if request.is_plain else ("plain", "aligned")
        self.unit = "prompts" if len(set(request.prompts)) == len(request.prompts) else "pictures"
        self.folder = RunFolder(path or request.out, about, len(request.prompts), self.unit)
        self.finished: list[tuple[str, Mapping[str, Score]]] = []
        self.evidence: list[Picture] = []
        self.diagnosis: Diagnosis | None = None
        self._request = request
        self._cells: list[Image] = []

    def add(self, comparisons: Sequence[Comparison], seconds: Mapping[str, float]) -> None:
        """Write the files of a finished batch; `seconds` is the time spent since the run began, by purpose.

        Raises:
            InvalidValue: if a file cannot be written.
        """
        with self.folder.writing("running") as result:
            first = len(self.finished)
            entries = [self._write(comparison, first + i) for i, comparison in enumerate(comparisons)]
            self.finished += [(self._title(comparison), comparison.scores) for comparison in comparisons]
            result["results"] += entries
            result["seconds"] = dict(seconds)
            result["unfinished"] = list(self._request.prompts[len(self.finished) :])

    def close(self, status: Status) -> None:
        """Write the contact sheet and the final status; nothing if no prompt was finished.

        Raises:
            InvalidValue: if a file cannot be written.
        """
        if not self.finished:
            return
        if len({picture.prompt for picture in self.evidence}) >= FEWEST:
            self.diagnosis = diagnosis_of(self.evidence, asdict(self._request.settings.config))
        with self.folder.writing(status) as result:
            if self.diagnosis is not None:
                result["diagnosis"] = self.diagnosis.as_json()
            if len(self._request.prompts) > 1:
                save_png(figures.contact_sheet(self._cells), self.folder.path / "contact-sheet.png")

    def _title(self, comparison: Comparison) -> str:
        """Return the prompt, with the seed where a prompt is drawn several times."""
        return comparison.title if self.unit == "pictures" else comparison.prompt

    def _write(self, comparison: Comparison, index: int) -> dict[str, Any]:
        """Write the files of one prompt and return its entry in result.json."""
        inside = f"{index:03d}" if len(self._request.prompts) > 1 else ""
        folder = self.folder.path / inside
        folder.mkdir(parents=True, exist_ok=True)
        note = {"prompt": comparison.prompt, "seed": str(comparison.seed)}
        if self._repeatable:
            note["command"] = shlex.join(self._request.of_prompt(index).command())
        files: dict[str, str] = {}

        def path(name: str, suffix: str) -> Path:
            files[name] = str(Path(inside, f"{name.removesuffix(' video')}.{suffix}"))
            return self.folder.path / files[name]

        form, video = self._request.image_format, self._request.video_format
        for name in self._shown:
            image = getattr(comparison, name)
            save_image(to_pil(image[None])[0], path(name, form), form, note)
            if image.dim() == 4:
                save_video(to_pil(image), path(f"{name} video", video), video)
        if len(self._shown) > 1:
            save_png(figures.comparison_picture(comparison), path("comparison", "png"), note)
        if figures.has_course(comparison):
            figures.save_figure(figures.trace_figure(comparison), path("trace", "png"))
        if inside:
            self._cells.append(figures.contact_cell(comparison, self._title(comparison), self._shown))
        if (kept := self._request.save_null_text) and comparison.null_text is not None:
            files["null text"] = str(Path(inside, "null-text.safetensors"))
            comparison.null_text.save(self.folder.path / files["null text"], noise=kept == "exact")
        return record.of_comparison(comparison, files)
