"""The steps of the pipeline's own call for a number of steps, with what the denoiser is told at each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models import levels
from nulltta.models.affine import Affine, gain_of
from nulltta.models.conditioning import NEGATIVES, PROMPTS
from nulltta.models.findings import Findings
from nulltta.models.latents import first_latents
from nulltta.models.recording import BESIDE, StepRecord, Watch, record
from nulltta.models.steps import ObservedStep
from nulltta.models.stock_call import StandIn, StockCall, zero_probe
from nulltta.models.tree import leaves, rows_first, same


@dataclass(frozen=True, slots=True)
class Timeline:
    """The steps of one call.

    Attributes:
        steps: noisiest first.
        initial: the map of the drawn noise to the first latent (in the scheduler's layout), which in an image-to-image
            call depends on the number of steps.
        asked: the number of steps that the pipeline's call must be given to take them.
    """

    steps: list[ObservedStep]
    initial: Affine
    asked: int


def timeline(stock: StockCall, found: Findings, wanted: int) -> Timeline:
    """Return as many steps as are wanted; where a call takes a part of the steps asked for, more are asked for.

    Raises:
        InvalidValue: if there are not as many, or a step does not go as those that were observed; if `strength` leaves
            none.
    """
    asked = wanted if wanted * stock.strength >= 1 else stock.asked_for(wanted)
    steps, initial = _recorded(stock, found, asked)
    for _ in range(4):
        if len(steps) == wanted:
            return Timeline(steps, initial(), asked)
        asked = max(1, asked + (wanted - len(steps)) * max(1, round(asked / max(1, len(steps)))))
        steps, initial = _recorded(stock, found, asked)
    raise InvalidValue(
        f"the scheduler takes {len(steps)} steps where {wanted} were asked for: choose another number of steps or "
        f"another scheduler than {type(stock.pipeline.scheduler).__name__}"
    )


def observed_timeline(stock: StockCall, found: Findings) -> Timeline:
    """Return the steps of the call that was observed.

    Raises:
        InvalidValue: if its scheduler or one of its steps is not supported.
    """
    steps, initial = _recorded(stock, found, found.steps)
    return Timeline(steps, initial(), found.steps)


def _recorded(stock: StockCall, found: Findings, asked: int) -> tuple[list[ObservedStep], Callable[[], Affine]]:
    """Return the steps of a call for so many, and a function that finds how its first latents are made.

    A call for another number of steps than is wanted may start at a noise level that half precision rounds to none.
    """
    watching = _Watching(found)
    count = 2 * torch.Size(found.drawn).numel()
    watch = Watch(StandIn(found.template, 2), watching.on_step, draws=count, place=found.place)
    seen = record(stock.pipeline, stock.arguments(PROMPTS[:1] * 2, NEGATIVES[:1] * 2, asked), watch)
    steps = levels.schedule(seen.steps)
    made = [
        replace(step, inputs=inputs, gains={path: gain * step.unit for path, gain in gains.items()})
        for step, inputs, gains in zip(steps, watching.inputs, watching.gains, strict=True)
        if step.component
    ]
    assert watching.start is not None
    start, draws = watching.start, seen.draws

    def initial() -> Affine:
        text_only = found.initial.base is None  # then the number of steps does not matter
        return found.initial if text_only else first_latents(start, draws)[1]

    return made, initial


@dataclass(slots=True)
class _Watching:
    """What the denoiser is given at each step of a recording, of which no more is kept than is needed."""

    found: Findings
    inputs: list[dict[str, Any]] = field(default_factory=list)
    gains: list[dict[str, float | Tensor]] = field(default_factory=list)
    still: dict[str, Any] = field(default_factory=dict)
    start: Tensor | None = None

    def on_step(self, index: int, step: StepRecord) -> Tensor:
        """Note one step and return zeros with a gradient for the next."""
        found = self.found
        there = leaves(rows_first(step.calls[0].arguments, found.axes), found.rows)
        if index == 0:
            self.still = {k: v for k, v in there.items() if k not in found.latents and k not in found.moving}
            self.start = step.sample
        elif changed := [path for path, value in self.still.items() if not same(value, there.get(path))]:
            raise InvalidValue(f"the denoiser's '{changed[0]}' changes at some steps only, which is not supported")
        self.inputs.append({path: _one_row(path, there[path], found) for path in found.moving})
        self.gains.append({path: _gain(found, path, there[path][0], step.sample) for path in found.latents})
        for path, enter in found.latents.items() if index else ():
            _require_base(path, enter, there[path][0])
        probe = zero_probe(index, step)
        step.sample, step.model_output = step.sample.detach(), step.model_output.detach()
        step.calls = [replace(call, arguments={}, returned=None) for call in step.calls]
        if index:
            step.sample = step.sample[:0]
        return probe


def _one_row(path: str, value: Any, found: Findings) -> Any:
    return value[0] if path in found.rows else value


def _gain(found: Findings, path: str, row: Tensor, sample: Tensor) -> float | Tensor:
    """What latents are multiplied by at a step; of the whole map's gain where that differs by element."""
    gain, general = gain_of(row, sample), found.latents[path].gain
    if isinstance(gain, float) and gain == 0:  # the scheduler is given a copy in another dtype
        raise InvalidValue(
            "the pipeline casts its latents between denoiser and scheduler, which is not supported: load it in float32"
        )
    if isinstance(general, float):
        if not isinstance(gain, float):
            raise InvalidValue(f"the latents enter in a way that changes from step to step ('{path}')")
        return gain
    factor = torch.as_tensor(gain).mean() / general[general != 0].mean()
    return general * float(factor)


def _require_base(path: str, enter: Affine, row: Tensor) -> None:
    """Refuse what stands beside the latents and changes from step to step, as the known part of an inpainting does."""
    there = row.detach().float().flatten().cpu()
    base = torch.zeros_like(there) if enter.base is None else enter.base
    if not torch.allclose(there, base, rtol=1e-4, atol=1e-5):
        raise InvalidValue(
            f"what the denoiser is given beside the latents ('{path}') changes from step to step, as a masked picture "
            "does, which is not supported"
        )


def clock(steps: list[ObservedStep]) -> tuple[str, list[float]]:
    """Return the path of an input of the denoiser that tells the time by one number, and that number at each step.

    Raises:
        InvalidValue: if there is none.
    """
    for path in sorted(path for path in steps[0].inputs if not path.startswith(f"{BESIDE}.")):
        values = [torch.as_tensor(step.inputs[path]).flatten() for step in steps]
        if all(value.numel() == 1 for value in values) and len({float(value) for value in values}) == len(values):
            return path, [float(value) for value in values]
    raise InvalidValue("the denoiser is not told the time by one number: a null text cannot be applied to its pipeline")
