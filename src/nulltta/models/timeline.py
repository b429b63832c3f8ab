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
from nulltta.models.tree import leaves, same


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
    rows = stock.rows
    count = rows * torch.Size(found.drawn).numel()
    watch = Watch(StandIn(found.template, rows), watching.on_step, draws=count, place=found.place)
    seen = record(stock.pipeline, stock.arguments(PROMPTS[:1] * rows, NEGATIVES[:1] * rows, asked), watch)
    steps = levels.schedule(seen.steps)
    watching.complete(seen.draws[found.place])
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
    """What the denoiser is given at each step of a recording, of which no more is kept than is needed.

    Attributes:
        found: the findings.
        inputs: by step and path, one row of what the denoiser is told of the time.
        gains: by step and path, what latents are multiplied by.
        still: what the denoiser is given that is the same at all steps.
        start: the first step's latents.
        first: by path, a row of what the denoiser is given of them.
        before: what the latents of the present step were made of.
    """

    found: Findings
    inputs: list[dict[str, Any]] = field(default_factory=list)
    gains: list[dict[str, Any]] = field(default_factory=list)
    still: dict[str, Any] = field(default_factory=dict)
    start: Tensor | None = None
    first: dict[str, Tensor] = field(default_factory=dict)
    before: Tensor | None = None

    def on_step(self, index: int, step: StepRecord) -> Tensor:
        """Note one step and return zeros with a gradient for the next."""
        found = self.found
        there = leaves(found.by_latent(step.calls[0].arguments), found.rows)
        if index == 0:
            self.still = {k: v for k, v in there.items() if k not in found.latents and k not in found.moving}
            self.start = step.sample
            self.first = {path: there[path][0] for path in found.latents}
        elif changed := [path for path, value in self.still.items() if not same(value, there.get(path))]:
            raise InvalidValue(f"the denoiser's '{changed[0]}' changes at some steps only, which is not supported")
        self.inputs.append({path: there[path][0] if path in found.rows else there[path] for path in found.moving})
        self.gains.append({path: self._gain(path, there[path][0], step) for path in found.latents})
        for path, enter in found.latents.items():
            _require_base(path, enter, there[path][0], everywhere=index > 0)
        probe = zero_probe(index, step)
        step.sample, step.model_output = step.sample.detach(), step.model_output.detach()
        step.given = step.given.detach()
        step.calls = [replace(call, arguments={}, returned=None) for call in step.calls]
        if index:
            step.sample = step.sample[:0]
        self.before = probe
        return probe

    def complete(self, noise: Tensor) -> None:
        """Find the gains of the first step that could not be found without the noise that it is made of."""
        assert self.start is not None
        for path, row in self.first.items():
            if self.gains[0][path] is None:
                self.gains[0][path] = _shared(self.found, path, gain_of(row, noise), gain_of(self.start[0], noise))

    def _gain(self, path: str, row: Tensor, step: StepRecord) -> Any:
        """What latents are multiplied by at a step; None at the first one, if it follows from the noise only."""
        gain = gain_of(row, step.given)
        if isinstance(gain, Tensor) or gain != 0:
            return _shared(self.found, path, gain)
        if self.before is None:  # the scheduler is given a part of the latents, or a copy in another dtype
            return None
        return _shared(self.found, path, gain_of(row, self.before), gain_of(step.sample[0], self.before))


def _shared(found: Findings, path: str, gain: float | Tensor, unit: float | Tensor = 1.0) -> float | Tensor:
    """What latents are multiplied by, of the whole map's gain where that differs by element.

    Args:
        found: the findings.
        path: where latents enter.
        gain: of the denoiser's argument.
        unit: of the scheduler's latents, with respect to the same source.

    Raises:
        InvalidValue: if the gain is not a multiple of the one that was found.
    """
    general = found.latents[path].gain
    unknown = InvalidValue(f"the latents enter in a way that changes from step to step ('{path}')")
    if isinstance(unit, Tensor) or unit == 0 or (isinstance(general, float) and isinstance(gain, Tensor)):
        raise unknown
    if not isinstance(gain, Tensor) and gain == 0:
        raise unknown
    if isinstance(general, float):
        return float(gain) / unit
    factor = torch.as_tensor(gain).mean() / general[general != 0].mean()
    return general * (float(factor) / unit)


def _require_base(path: str, enter: Affine, row: Tensor, everywhere: bool) -> None:
    """Refuse what stands beside the latents and changes from step to step, as the known part of an inpainting does.

    Args:
        path: where latents enter.
        enter: how they do.
        row: what the denoiser is given where the latents are zero.
        everywhere: the latents are zero; else only what does not depend on them is compared.
    """
    there = row.detach().float().flatten().cpu()
    base = torch.zeros_like(there) if enter.base is None else enter.base
    if not everywhere:
        fixed = enter.gain == 0 if isinstance(enter.gain, Tensor) else torch.zeros_like(there, dtype=torch.bool)
        there, base = there[fixed], base[fixed]
    if not torch.allclose(there, base, rtol=1e-4, atol=1e-5):
        raise InvalidValue(
            f"what the denoiser is given beside the latents ('{path}') changes from step to step, as a masked picture "
            "does, which is not supported"
        )


def clock(steps: list[ObservedStep]) -> tuple[str, list[float]]:
    """Return the path of an input of the denoiser that tells the time, and that time at each step.

    Where each part of a latent has its own time, as where a first frame is kept, it is the latest, which is that of
    the parts that are denoised.

    Raises:
        InvalidValue: if there is none.
    """
    own = (path for path in steps[0].inputs if not path.startswith(f"{BESIDE}."))
    for path in sorted(own, key=lambda path: (torch.as_tensor(steps[0].inputs[path]).numel() > 1, path)):
        values = [float(torch.as_tensor(step.inputs[path]).max()) for step in steps]
        if len(set(values)) == len(values):
            return path, values
    raise InvalidValue("the denoiser is not told the time by one number: a null text cannot be applied to its pipeline")
