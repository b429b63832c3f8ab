"""What `nulltta align` does: batch after batch aligned, measured, written and shown."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from rich.console import Console

from nulltta import rewards
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.evaluation.comparison import compare
from nulltta.evaluation.measures import held_out_measures
from nulltta.rewards.expression import with_source
from nulltta.runs.folder import Output, refuse_unwritable
from nulltta.runs.loading import hide_loading_bars, load_silently, usable_device, usual_dtype
from nulltta.runs.request import Request
from nulltta.runs.tables import progress, score_tables


def run(request: Request) -> bool:
    """Do what is asked, saying how it goes; false if Ctrl-C ended it early, with finished prompts on the disk.

    Raises:
        NullTTAError: as `align` and `Output` do; prompts that were finished before stay on the disk.
        KeyboardInterrupt: Ctrl-C came before any prompt was finished.
    """
    notes, clock = Console(stderr=True), _Clock()
    refuse_unwritable(request.out)
    with notes.status("loading model and rewards"):
        request, model, parts = load(request)
    output = Output(request)
    clock.lap("loading")
    prompts, size = request.prompts, request.batch_size
    batches = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    try:
        with progress(notes, parts["reward"].name, len(batches), request.config.num_inference_steps) as on_step:
            for batch in batches:
                comparisons = compare(model, batch, on_step=on_step, **parts)
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
        raise InvalidValue(f"{error}; {_done(request, output)}") from error
    else:
        output.close("finished")
    Console().print(*score_tables(output.finished))
    return _conclude(request, output, notes)


def _conclude(request: Request, output: Output, notes: Console) -> bool:
    """The last line: where to look, and what is missing."""
    finished = len(output.finished) == len(request.prompts)
    picture = "comparison.png" if len(request.prompts) == 1 else "contact-sheet.png"
    where = f"look at {request.out / picture}; all settings and scores are in {request.out / 'result.json'}"
    line = where if finished else f"interrupted: {_done(request, output)}"
    (Console() if finished else notes).print(line, markup=False, highlight=False, soft_wrap=True)
    return finished


def _done(request: Request, output: Output) -> str:
    finished, asked = len(output.finished), len(request.prompts)
    return f"{finished} of {asked} prompts are finished and in '{request.out}', not the last {asked - finished}"


def load(request: Request) -> tuple[Request, GuidedModel, dict[str, Any]]:
    """The request with nothing left to find out, the model and the rest of `compare`'s arguments; the rewards are
    loaded first, as their mistakes are found more quickly."""
    device = usable_device(request.device)
    dtype = request.dtype or usual_dtype(device)
    hide_loading_bars()
    sourced = with_source(request.reward, request.reward_source)
    reward = rewards.load(sourced, device=device)
    guard = None if request.guard is None else rewards.load(request.guard, device=device)
    request = replace(
        request, reward=sourced, reward_source=None, device=str(device), dtype=dtype,
        config=request.config.resolved(differentiable=reward.differentiable),
    )  # fmt: skip
    model = load_silently(
        request.model, device, dtype, tiny_decoder=request.tiny_decoder, compile=request.compile
    )  # fmt: skip
    return request, model, {
        "reward": reward, "guard": guard, "measures": held_out_measures(model, device),
        "config": request.config, "seed": request.seed, "negative_prompt": request.negative_prompt,
        "method": request.method, "micro_batch": request.micro_batch,
    }  # fmt: skip


class _Clock:
    """Seconds spent, by purpose."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, purpose: str) -> None:
        now = time.perf_counter()
        self.seconds[purpose] = self.seconds.get(purpose, 0.0) + now - self._last
        self._last = now
