"""What recordings of a stock pipeline show: where the null text is, how latents and time enter, how the two branches
are combined, and how latents reach the decoder. No pipeline is known by name.

Three calls are watched. In the first the denoiser runs, for one step. In the others it is stood in for by random
numbers, and gradients are recorded from the latents on: what depends on the latents, and how, is then differentiated
instead of guessed (`affine`). The second and third differ in their prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models import affine, guidance
from nulltta.models.affine import Affine
from nulltta.models.conditioning import NEGATIVES, PROMPTS, Conditioning
from nulltta.models.recording import (
    DenoiserCall,
    Recording,
    StepRecord,
    Watch,
    accepts,
    call_parameters,
    record,
    returned_like,
)
from nulltta.models.tree import leaves, rows

SCALE = 3.0  # of guidance, in recordings: above 1, so that both branches are evaluated


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found.

    Attributes:
        joint: both branches are rows of one denoiser call; else each is a call.
        null_first: the null branch is the first half of the rows, or the first call.
        rows: paths of the arguments that have one row per latent.
        latents: how latents, in the model's layout, enter at each path.
        moving: paths that change from step to step otherwise: the time.
        text: paths that hold the null text, or the prompt.
        masks: those of them that hold zeros and ones only, of whatever dtype.
        alone: texts have unlike lengths: each must be encoded by itself.
        rule, sign: of guidance.
        sample: the shape of one latent as the scheduler sees it.
        to_sample: from the model's layout to the scheduler's, as an index; None if they agree.
        from_sample: the reverse.
        initial: the first latent (in the scheduler's layout) of the noise that was drawn; its base is the rest of it.
        drawn: the shape of one latent's noise.
        shape: of one latent in the model's layout, which is the decoder's.
        decoder_input: of latents in the model's layout.
        decoder_call: the decoder's other arguments.
        branch: paths whose rows differ between the branches, whatever the texts.
        template: what a denoiser returned for one prompt, and for how many rows.
        steps: the number of steps that was asked for.
        upcasts: the decoder is used in a higher precision than it is kept in.
    """

    joint: bool
    null_first: bool
    rows: frozenset[str]
    latents: Mapping[str, Affine]
    moving: frozenset[str]
    text: tuple[str, ...]
    masks: frozenset[str]
    alone: bool
    rule: str
    sign: int
    sample: tuple[int, ...]
    to_sample: Tensor | None
    from_sample: Tensor | None
    initial: Affine
    drawn: tuple[int, ...]
    shape: tuple[int, ...]
    decoder_input: Affine
    decoder_call: tuple[tuple[Any, ...], dict[str, Any]]
    branch: frozenset[str]
    template: Any
    steps: int
    upcasts: bool


@dataclass(frozen=True, slots=True)
class StockCall:
    """The stock call that is watched: the pipeline and the caller's keyword arguments.

    Attributes:
        none_for_empty: an empty negative prompt is given as None.
        conditioning: embeddings that stand for texts.
    """

    pipeline: Any
    options: Mapping[str, Any]
    none_for_empty: bool = False
    conditioning: Conditioning = Conditioning()

    @property
    def scale_name(self) -> str:
        """The argument that sets the scale of classifier-free guidance."""
        return "true_cfg_scale" if accepts(self.pipeline, "true_cfg_scale") else "guidance_scale"

    @property
    def fewest_steps(self) -> int:
        """The number to ask for so that two are taken: an image-to-image call takes `strength` of them."""
        parameter = call_parameters(type(self.pipeline)).get("strength")
        strength = self.options.get("strength", 1.0 if parameter is None else parameter.default)
        return max(2, math.ceil(2 / strength)) if isinstance(strength, float) and strength > 0 else 2

    def arguments(self, prompts: Sequence[str], negatives: Sequence[str], steps: int, **more: Any) -> dict[str, Any]:
        """Of a call."""
        return {
            **self.conditioning.arguments(self.pipeline, prompts, negatives, self.none_for_empty),
            "num_inference_steps": steps,
            self.scale_name: SCALE,
            "output_type": "pt",
            "generator": torch.Generator().manual_seed(0),
            **self.options,
            **more,
        }


class StandIn:
    """A denoiser that computes nothing: it returns zeros, or noise, shaped as the real one's output."""

    def __init__(self, template: Any, rows: int, random: bool = False) -> None:
        self.template, self.rows = template, rows
        self.generator = torch.Generator().manual_seed(1) if random else None

    def __call__(self, name: str, arguments: dict[str, Any]) -> Any:
        del name, arguments
        first = self.template if isinstance(self.template, Tensor) else self.template[0]
        like = first[0] if isinstance(first, list | tuple) else first
        shape = (self.rows, *(like.shape if isinstance(first, list | tuple) else like.shape[1:]))
        made = torch.zeros(shape, dtype=torch.float32)
        if self.generator is not None:
            made.normal_(generator=self.generator)
        return returned_like(self.template, made.to(like))


def zero_probe(_: int, step: StepRecord) -> Tensor:
    """Zeros with a gradient in place of the scheduler's result."""
    torch.set_grad_enabled(True)
    return torch.zeros(step.sample.shape, dtype=torch.float32, device=step.sample.device, requires_grad=True)


def observe(stock: StockCall) -> tuple[Findings, StepRecord]:
    """The findings, and the recorded first step in which the denoiser ran, of one prompt: what to prove them by.

    Raises:
        InvalidValue: if something is not found, with what it is.
    """
    _require_negatives(stock.pipeline)
    steps = stock.fewest_steps
    real = record(stock.pipeline, stock.arguments(PROMPTS[:1], NEGATIVES[:1], steps), Watch(stop_at="step"))
    if not real.steps:
        raise InvalidValue("this pipeline's call does not reach scheduler.step: it is not supported")
    first = real.steps[0]
    calls = len(first.calls)
    if calls not in (1, 2):
        raise InvalidValue(
            f"this pipeline evaluates its denoiser {calls} times per step where two branches were expected: switch off "
            "further guidance (pag_scale, skip_guidance_layers) and caches"
        )
    template, count = first.calls[0].returned, len(first.calls[0].output)
    probe = Watch(
        StandIn(template, 2 * count, random=True), zero_probe, draws=2 * first.sample.numel() // len(first.sample)
    )
    twice = record(stock.pipeline, stock.arguments(PROMPTS[:1] * 2, NEGATIVES[:1] * 2, steps), probe)
    while len(twice.steps) < 2 and steps < 64:  # an image-to-image call takes a part of the steps
        steps *= 2
        twice = record(stock.pipeline, stock.arguments(PROMPTS[:1] * 2, NEGATIVES[:1] * 2, steps), probe)
    if steps != stock.fewest_steps and twice.steps:
        real = record(stock.pipeline, stock.arguments(PROMPTS[:1], NEGATIVES[:1], steps), Watch(stop_at="step"))
        first = real.steps[0]
    if len(twice.steps) < 2:
        raise InvalidValue(f"this call takes {len(twice.steps)} of {steps} steps: give it a higher strength")
    other = record(
        stock.pipeline,
        stock.arguments(PROMPTS, NEGATIVES, steps),
        Watch(StandIn(template, 2 * count), stop_at="step"),
    )
    return _compare(first, twice, other, template, steps), first


def _require_negatives(pipeline: Any) -> None:
    for name in ("prompt", "negative_prompt", "num_inference_steps"):
        if not accepts(pipeline, name):
            raise InvalidValue(
                f"{type(pipeline).__name__} is not supported: its call has no {name}"
                + (", so it has no null branch to optimise" if name == "negative_prompt" else "")
            )


def _compare(first: StepRecord, twice: Recording, other: Recording, template: Any, steps: int) -> Findings:
    start, then = twice.steps[0], twice.steps[1]
    calls = len(first.calls)
    if any(len(step.calls) != calls for step in twice.steps):
        raise InvalidValue("this call switches guidance off at some steps: let it hold for all of them")
    in_rows = _row_paths(first.calls, start.calls)
    latents, joint = _latents(then, start, in_rows, calls)
    half = len(start.sample)
    sample = tuple(start.sample.shape[1:])

    rule = _rule(twice.steps, joint, sample)
    name, sign, null_first = rule
    moving = _moving(start.calls[0], then.calls[0], in_rows) - set(latents)
    text, lengths, branch = set(), False, set()
    for position, (a, b) in enumerate(zip(start.calls, other.steps[0].calls, strict=True)):
        one, two = leaves(a.arguments, in_rows), leaves(b.arguments, in_rows)
        for path in one:
            if path in latents or path in moving or same(one[path], two.get(path)):
                continue
            if path not in in_rows:
                continue  # depends on a text's length: the shell keeps it
            text.add(path)
            lengths |= [shape(v) for v in one[path]] != [shape(v) for v in two[path]]
        del position
    for path in in_rows - text - set(latents) - moving:
        halves = _branches_of(start.calls, path, joint, null_first, half, in_rows)
        if not all(same(halves[0][0], row) for row in (*halves[0], *halves[1])):
            branch.add(path)
    _require_null(start, other.steps[0], text, joint, null_first, half, in_rows)

    decoded_args, decoded_kwargs = twice.decoded if twice.decoded is not None else ((), {})
    z = next((v for v in (*decoded_args, *decoded_kwargs.values()) if isinstance(v, Tensor)), None)
    last = twice.steps[-1].probe
    if z is None or last is None:
        raise InvalidValue("this pipeline does not end in vae.decode: it is not supported")
    decoder_input = _affine(z, last, "the latents reach the decoder in a way that is not known")[0]
    if not decoder_input.permutes:
        raise InvalidValue("the latents reach the decoder in a way that is not known: some of them do not")
    from_sample = decoder_input.index
    to_sample = decoder_input.inverse_index()
    shape_ = decoder_input.shape
    if len(shape_) == 4 and shape_[1] == 1:
        shape_ = (shape_[0], *shape_[2:])
    drawn, initial = _initial(start, twice.draws)
    return Findings(
        joint=joint,
        null_first=null_first,
        rows=in_rows,
        latents={path: each.after(to_sample) for path, each in latents.items()},
        moving=frozenset(moving),
        text=tuple(path for path in leaves(start.calls[0].arguments, in_rows) if path in text),
        masks=frozenset(path for path in text if _is_mask(start, other.steps[0], path, in_rows)),
        alone=lengths,
        rule=name,
        sign=sign,
        sample=sample,
        to_sample=to_sample,
        from_sample=from_sample,
        initial=initial,
        drawn=drawn,
        shape=shape_,
        decoder_input=Affine(decoder_input.shape, None, decoder_input.gain, decoder_input.base),
        decoder_call=(decoded_args, decoded_kwargs),
        branch=frozenset(branch),
        template=(template, len(first.calls[0].output)),
        steps=steps,
        upcasts=twice.upcast,
    )


def _row_paths(one: Sequence[DenoiserCall], two: Sequence[DenoiserCall]) -> frozenset[str]:
    found: set[str] = set()
    for a, b in zip(one, two, strict=True):
        try:
            found.update(rows(a.arguments, b.arguments))
        except ValueError as error:
            raise InvalidValue(
                f"the denoiser's argument '{error}' grows with the batch in a way that is not known"
            ) from error
    return frozenset(found)


def _latents(
    then: StepRecord, start: StepRecord, in_rows: frozenset[str], calls: int
) -> tuple[dict[str, Affine], bool]:  # fmt: skip
    """How the scheduler's latents enter each call, and whether both branches are rows of one."""
    probe = start.probe
    assert probe is not None
    found: dict[str, Affine] = {}
    owners: list[int] = []
    for call in then.calls:
        for path, value in leaves(call.arguments, in_rows).items():
            parts = value if isinstance(value, list) else [value]
            if not any(isinstance(part, Tensor) and affine.depends(part, probe) for part in parts):
                continue
            if path not in in_rows:
                raise InvalidValue(f"the latents enter in a way that is not known: '{path}' mixes the rows of a batch")
            each, owners = _affine(value, probe, f"the latents enter in a way that is not known ('{path}')")
            if path in found and not affine.same(found[path], each):
                raise InvalidValue(f"the latents enter the two branches in different ways ('{path}')")
            found[path] = each
    if not found:
        raise InvalidValue("the denoiser's arguments do not depend on the scheduler's latents in a way that is known")
    batch = len(start.sample)
    if owners != list(range(batch)) * (len(owners) // batch):
        raise InvalidValue(f"the latents enter in an order that is not known: {owners}")
    copies = len(owners) // batch
    if (calls, copies) not in ((1, 2), (2, 1)):
        raise InvalidValue(
            "the call evaluates no null branch: its guidance is off, or its model is guidance-distilled"
            if calls * copies == 1
            else f"the call evaluates {calls * copies} branches where two were expected: switch off further guidance"
            " (pag_scale)"
        )
    return found, calls == 1


def _rule(steps: Sequence[StepRecord], joint: bool, sample: tuple[int, ...]) -> tuple[str, int, bool]:
    found: set[tuple[str, int, bool] | None] = set()
    for step in steps:
        answers = [prediction(call.output, sample) for call in step.calls]
        first, second = answers[0].chunk(2) if joint else answers
        guided = step.model_output
        if guided.shape[1] == 2 * sample[0] and guided.shape[1:] != sample:
            guided = prediction(guided, sample)
        match = None
        if guided.shape == first.shape:
            for null_first, (null, cond) in ((True, (first, second)), (False, (second, first))):
                if match is None and (named := guidance.name_of(null, cond, SCALE, guided)):
                    match = (*named, null_first)
        found.add(match)
    if len(found) != 1 or None in found:
        raise InvalidValue("the two branches are combined in a way that is not known: switch off guidance_rescale")
    answer = found.pop()
    assert answer is not None
    return answer


def prediction(output: Tensor, sample: Sequence[int]) -> Tensor:
    """A denoiser's output (R, ...) as predictions in the scheduler's layout; a learnt variance beside it is left out.

    Raises:
        InvalidValue: if it has another size.
    """
    count = torch.Size(sample).numel()
    if output[0].numel() == count:
        return output.reshape(len(output), *sample)
    if output[0].numel() == 2 * count and output.shape[1] % 2 == 0:
        return output[:, : output.shape[1] // 2].reshape(len(output), *sample)
    raise InvalidValue(
        f"the denoiser's output has shape {tuple(output.shape[1:])}, the latents {tuple(sample)}: how one becomes the "
        "other is not known"
    )


def _moving(start: DenoiserCall, then: DenoiserCall, in_rows: frozenset[str]) -> set[str]:
    one, two = leaves(start.arguments, in_rows), leaves(then.arguments, in_rows)
    return {path for path in one if not same(one[path], two.get(path))}


def _branches_of(
    calls: Sequence[DenoiserCall], path: str, joint: bool, null_first: bool, batch: int, in_rows: frozenset[str]
) -> tuple[list[Any], list[Any]]:
    """An argument's rows in the null branch, and in the conditional one."""
    if joint:
        value = leaves(calls[0].arguments, in_rows)[path]
        first, second = list(value[:batch]), list(value[batch:])
    else:
        first, second = (list(leaves(call.arguments, in_rows).get(path, [])) for call in calls)
    return (first, second) if null_first else (second, first)


def _require_null(
    start: StepRecord, other: StepRecord, text: set[str], joint: bool, null_first: bool, batch: int,
    in_rows: frozenset[str],
) -> None:  # fmt: skip
    for path in text:
        a, b = (_branches_of(step.calls, path, joint, null_first, batch, in_rows)[0] for step in (start, other))
        if not all(same(x, y) for x, y in zip(a, b, strict=True)):
            return
    raise InvalidValue("the negative prompt changes nothing in the denoiser's null branch: there is none to optimise")


def _is_mask(start: StepRecord, other: StepRecord, path: str, in_rows: frozenset[str]) -> bool:
    values = [
        row
        for step in (start, other)
        for call in step.calls
        for row in leaves(call.arguments, in_rows).get(path, [])
        if isinstance(row, Tensor)
    ]
    return bool(values) and all(v.dim() <= 1 and bool(((v == 0) | (v == 1)).all()) for v in values)


def _initial(start: StepRecord, draws: Sequence[Tensor]) -> tuple[tuple[int, ...], Affine]:
    for draw in draws:
        if affine.depends(start.sample, draw):
            each, _ = _affine(start.sample, draw, "the first latents are made of noise in a way that is not known")
            return tuple(draw.shape[1:]), each
    raise InvalidValue("the first latents are not made of normal noise that is drawn at once")


def _affine(target: Any, source: Tensor, unknown: str) -> tuple[Affine, list[int]]:
    try:
        return affine.found(target, source)
    except ValueError as error:
        raise InvalidValue(f"{unknown}: {error}") from error


def shape(value: Any) -> Any:
    """Of a tensor; of other values their type."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value)


def same(a: Any, b: Any) -> bool:
    """Whether two leaves are equal, bit for bit."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    try:
        return bool(a == b)
    except (TypeError, ValueError, RuntimeError):
        return a is b
