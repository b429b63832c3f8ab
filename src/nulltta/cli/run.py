"""What `nulltta align` does: batch after batch aligned, measured, written and shown."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from nulltta import rewards
from nulltta.cli.comparison import compare, held_out_measures
from nulltta.cli.output import Output
from nulltta.cli.request import Request
from nulltta.cli.terminal import progress, score_table
from nulltta.models import load_model
from nulltta.types import GuidedModel, NullTTAError


def run(request: Request) -> bool:
    """Do what is asked, saying how it goes; false if Ctrl-C ended it early, with finished prompts on the disk.

    Raises:
        NullTTAError: as `align` and `Output` do; prompts that were finished before stay on the disk.
        KeyboardInterrupt: Ctrl-C came before any prompt was finished.
    """
    request = _on_device(request)
    notes, clock = Console(stderr=True), _Clock()
    output = Output(request)
    with notes.status("loading model and rewards"):
        model, parts = _load(request)
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
        raise NullTTAError(f"{error}; {_done(request, output)}") from error
    else:
        output.close("finished")
    Console().print(score_table(output.finished))
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


def _load(request: Request) -> tuple[GuidedModel, dict[str, Any]]:
    """The model and `compare`'s arguments; the rewards first, as their mistakes are found more quickly."""
    _hide_loading_bars()
    reward = rewards.load(request.reward)
    guard = None if request.guard is None else rewards.load(request.guard)
    model = load_model(request.model, device=request.device, dtype=getattr(torch, str(request.dtype)))
    return model, {
        "reward": reward, "guard": guard, "measures": held_out_measures(model, reward, guard),
        "config": request.config, "seed": request.seed, "negative_prompt": request.negative_prompt,
    }  # fmt: skip


def _on_device(request: Request) -> Request:
    """The request with its device and type filled in, after a try."""
    name = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise NullTTAError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return replace(request, device=name, dtype=request.dtype or ("float32" if device.type == "cpu" else "bfloat16"))


def _hide_loading_bars() -> None:
    """diffusers' and transformers', which count files on the disk; downloads keep theirs."""
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()  # turns the downloads' off as well
    enable_progress_bars()


class _Clock:
    """Seconds spent, by purpose."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, purpose: str) -> None:
        now = time.perf_counter()
        self.seconds[purpose] = self.seconds.get(purpose, 0.0) + now - self._last
        self._last = now
