"""What `nulltta align` does: batch after batch aligned, measured, written and shown."""

from __future__ import annotations

import time
from dataclasses import replace

from rich.console import Console

from nulltta.errors import NullTTAError
from nulltta.runs.folder import Output, refuse_unwritable
from nulltta.runs.loading import load
from nulltta.runs.request import AlignRequest
from nulltta.runs.tables import progress, score_tables


def run(request: AlignRequest) -> bool:
    """Do what is asked, saying how it goes; false if Ctrl-C ended it early, with finished prompts on the disk.

    Raises:
        NullTTAError: as `align` and `Output` do; prompts that were finished before stay on the disk.
        KeyboardInterrupt: Ctrl-C came before any prompt was finished.
    """
    notes, clock = Console(stderr=True), _Clock()
    refuse_unwritable(request.out)
    with notes.status("loading model and rewards"):
        loaded = load(request.settings)
    request = replace(request, settings=loaded.settings)
    output = Output(request)
    clock.lap("loading")
    prompts, size = request.prompts, request.settings.batch_size
    batches = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    try:
        steps = request.settings.config.num_inference_steps
        with progress(notes, loaded.reward.name, len(batches), steps) as on_step:
            for batch in batches:
                comparisons = loaded.compare(
                    batch, seed=request.seed, negative_prompt=request.negative_prompt, on_step=on_step
                )
                clock.lap("sampling")
                output.add(comparisons, clock.seconds)
                clock.lap("writing")
    except KeyboardInterrupt:
        if not output.finished:
            raise
        output.close("interrupted" if len(output.finished) < len(prompts) else "finished")
    except NullTTAError as error:
        if not output.finished:
            raise
        output.close("failed")
        error.add_note(_done(request, output))
        raise
    else:
        output.close("finished")
    Console().print(*score_tables(output.finished))
    return _conclude(request, output, notes)


def _conclude(request: AlignRequest, output: Output, notes: Console) -> bool:
    """The last line: where to look, and what is missing."""
    finished = len(output.finished) == len(request.prompts)
    picture = "comparison.png" if len(request.prompts) == 1 else "contact-sheet.png"
    where = f"look at {request.out / picture}; all settings and scores are in {request.out / 'result.json'}"
    line = where if finished else f"interrupted: {_done(request, output)}"
    (Console() if finished else notes).print(line, markup=False, highlight=False, soft_wrap=True)
    return finished


def _done(request: AlignRequest, output: Output) -> str:
    finished, asked = len(output.finished), len(request.prompts)
    return f"{finished} of {asked} prompts are finished and in '{request.out}', not the last {asked - finished}"


class _Clock:
    """Seconds spent, by purpose."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, purpose: str) -> None:
        now = time.perf_counter()
        self.seconds[purpose] = self.seconds.get(purpose, 0.0) + now - self._last
        self._last = now
