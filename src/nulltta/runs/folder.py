"""The folder of a run: pictures of each prompt, a contact sheet, and result.json, which lists what is finished."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image

from nulltta.errors import InvalidValue
from nulltta.evaluation.comparison import Comparison, Score
from nulltta.files import as_error
from nulltta.images import save_png, to_pil
from nulltta.runs import figures, record
from nulltta.runs.interrupts import interrupts_deferred
from nulltta.runs.request import AlignRequest

Status = Literal["running", "finished", "interrupted", "failed"]


class Output:
    """Writes the results of a run batch by batch: one prompt into the folder itself, several into 000, 001, ...

    Every file appears whole or not at all. result.json is written after each batch, so it never names a file that
    does not exist. Ctrl-C takes effect after a batch has been written.

    Args:
        request: what the run was asked for.
        folder: the folder to write to; that of the request if None.

    Attributes:
        finished: the prompts whose files have been written, with their scores.

    Raises:
        NullTTAError: if the folder or a file in it cannot be written.
    """

    def __init__(self, request: AlignRequest, folder: Path | None = None) -> None:
        self.folder = folder or request.out
        self.finished: list[tuple[str, Mapping[str, Score]]] = []
        self._request = request
        self._prompts = request.prompts
        self._record: dict[str, Any] = {**record.of_request(request), "seconds": {}, "results": []}
        self._cells: list[Image] = []
        refuse_unwritable(self.folder)

    def add(self, comparisons: Sequence[Comparison], seconds: Mapping[str, float]) -> None:
        """Write the files of a finished batch; `seconds` is the time spent since the run began, by purpose."""
        with interrupts_deferred(), as_error(self.folder):
            first = len(self.finished)
            results = [self._write(comparison, first + i) for i, comparison in enumerate(comparisons)]
            self._record["results"] += results
            self._record["seconds"] = dict(seconds)
            self.finished += [(comparison.prompt, comparison.scores) for comparison in comparisons]
            self._save("running")

    def close(self, status: Status) -> None:
        """Write the contact sheet and the final status; nothing if no prompt was finished."""
        if not self.finished:
            return
        with interrupts_deferred(), as_error(self.folder):
            if len(self._prompts) > 1:
                save_png(figures.contact_sheet(self._cells), self.folder / "contact-sheet.png")
            self._save(status)

    def _write(self, comparison: Comparison, index: int) -> dict[str, Any]:
        """Write the files of one prompt and return its entry in result.json."""
        inside = f"{index:03d}" if len(self._prompts) > 1 else ""
        folder = self.folder / inside
        folder.mkdir(parents=True, exist_ok=True)
        command = shlex.join(replace(self._request, prompts=[comparison.prompt]).command())
        note = {"prompt": comparison.prompt, "seed": str(comparison.seed), "command": command}
        pictures: dict[str, Callable[[], Image]] = {
            "plain": lambda: to_pil(comparison.plain[None])[0],
            "aligned": lambda: to_pil(comparison.aligned[None])[0],
            "comparison": lambda: figures.comparison_picture(comparison),
        }
        for name, picture in pictures.items():
            save_png(picture(), folder / f"{name}.png", note)
        figures.save_figure(figures.trace_figure(comparison), folder / "trace.png")
        if inside:
            self._cells.append(figures.contact_cell(comparison))
        files = {name: str(Path(inside, f"{name}.png")) for name in (*pictures, "trace")}
        if (form := self._request.save_null_text) and comparison.null_text is not None:
            files["null text"] = str(Path(inside, "null-text.safetensors"))
            comparison.null_text.save(self.folder / files["null text"], noise=form == "exact")
        return record.of_comparison(comparison, files)

    def _save(self, status: Status) -> None:
        unfinished = list(self._prompts[len(self.finished) :])
        record.save({**self._record, "status": status, "unfinished": unfinished}, self.folder / "result.json")


def refuse_unwritable(folder: Path) -> None:
    """Check that a folder can be created or written to, without creating anything.

    Raises:
        InvalidValue: if there is a file in its place, or no permission to write.
    """
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise InvalidValue(f"cannot write to '{folder}': '{existing}' is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InvalidValue(f"cannot write to '{folder}': no permission to write in '{existing}'")
