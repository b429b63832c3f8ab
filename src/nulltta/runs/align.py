"""The work of `nulltta align`."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from rich.console import Console

from nulltta.alignment import METHODS, expected_steps
from nulltta.config import KEEPING, one_of
from nulltta.display import terminal
from nulltta.display.progress import print_line, progress
from nulltta.errors import InvalidValue
from nulltta.evaluation.comparison import compare
from nulltta.evaluation.diagnosis import FEWEST
from nulltta.evaluation.evidence import examine, features_of
from nulltta.images import require_video_format
from nulltta.runs.align_writer import AlignWriter
from nulltta.runs.folder import closing, require_free
from nulltta.runs.loading import LoadedRun, load
from nulltta.runs.request import AlignRequest
from nulltta.runs.tables import diagnosis_section, score_tables


def run(request: AlignRequest) -> bool:
    """Align, measure and write batch after batch, showing the progress and the scores.

    Returns:
        Whether all prompts are finished. If not, Ctrl-C ended the run after some of them.

    Raises:
        InvalidValue: if a setting has no effect or is unknown, the device cannot be used, or a file cannot be written.
        MissingExtra: if the library that writes the format of videos is not installed.
        LoadError: if the model or a reward does not load.
        RewardError: if a reward fails; the prompts finished before stay in the folder.
        OutOfMemory: if memory runs out; the prompts finished before stay in the folder.
        KeyboardInterrupt: after a Ctrl-C before any prompt was finished.
    """
    notes, clock = terminal.notes(), _Clock()
    require_video_format(request.video_format)
    one_of(request.settings, "method", METHODS)
    if request.save_null_text is not None and (method := request.settings.method) not in KEEPING:
        raise InvalidValue(f"has no effect: the method {method} keeps no null text (method)", "save_null_text")
    require_free(request.out, overwrite=request.overwrite)
    with notes.status("loading model and rewards"):
        loaded = load(request.settings)
    if request.video_format != AlignRequest.video_format and not _draws_videos(loaded):
        raise InvalidValue(f"has no effect: {loaded.model.name} draws still pictures (model)", "video_format")
    request = replace(request, settings=loaded.settings)
    writer = AlignWriter(request)
    prompts, size = request.prompts, request.settings.batch_size
    seeds, negatives = request.seeds, request.negative_prompts
    enough = len(set(prompts)) >= FEWEST and not request.is_plain  # for a diagnosis
    features = features_of(loaded.model.name, loaded.settings.device) if enough else None
    clock.lap("loading")
    batches = [slice(i, i + size) for i in range(0, len(prompts), size)]
    steps = expected_steps(request.settings.method, request.settings.config)
    with (
        closing(writer),
        progress(
            notes, loaded.reward.name, len(batches), steps, verb="sampling" if request.is_plain else "aligning"
        ) as on_step,
    ):
        for batch in batches:
            result = loaded.align(prompts[batch], seed=seeds[batch], negative_prompt=negatives[batch], on_step=on_step)
            comparisons = compare(result, loaded.measures)
            clock.lap("sampling")
            if features is not None:
                writer.evidence += examine(comparisons, result.problem.reward, features)
            clock.lap("examining")
            writer.add(comparisons, clock.seconds)
            clock.lap("writing")
    Console().print(*score_tables(writer.finished, writer.unit, is_plain=request.is_plain))
    if writer.diagnosis is not None:
        Console().print(*diagnosis_section(writer.diagnosis))
    if not writer.folder.complete:
        print_line(notes, f"interrupted: {writer.folder}")
        return False
    single = f"plain.{request.image_format}" if request.is_plain else "comparison.png"
    picture = request.out / (single if len(prompts) == 1 else "contact-sheet.png")
    print_line(Console(), f"look at {picture}; all settings and scores are in {request.out / 'result.json'}")
    return True


@torch.no_grad()
def _draws_videos(loaded: LoadedRun) -> bool:
    """Return whether a model's decoder makes videos, (1, F, 3, H, W), of its latents."""
    latent = torch.zeros((1, *loaded.model.latent_shape), device=loaded.settings.device)
    return loaded.model.decode(latent).dim() == 5


class _Clock:
    """Measures the seconds spent, by purpose."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, purpose: str) -> None:
        """Count the time since the last call for a purpose."""
        now = time.perf_counter()
        self.seconds[purpose] = self.seconds.get(purpose, 0.0) + now - self._last
        self._last = now
