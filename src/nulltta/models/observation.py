"""What recordings of a stock pipeline show: where the null text is, how latents and time enter, how the two branches
are combined, and how latents reach the decoder. No pipeline is known by name.

Three calls are watched. In the first the denoiser runs, for one step. In the others it is stood in for by random
numbers, and gradients are recorded from the latents on: what depends on the latents, and how, is then differentiated
instead of guessed (`affine`). The second and third differ in their prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models import affine, guidance, tree
from nulltta.models.affine import Affine
from nulltta.models.conditioning import NEGATIVES, PROMPTS
from nulltta.models.draws import fixed_noise
from nulltta.models.findings import Findings
from nulltta.models.recording import BESIDE, DenoiserCall, Recording, StepRecord, Watch
from nulltta.models.stock_call import SCALE, StandIn, StockCall, Template, zero_probe
from nulltta.models.tree import leaves, same, shape

_FURTHER = "switch off further guidance (pag_scale, skip_guidance_layers) and caches"


class NoNullBranch(InvalidValue):
    """The pipeline's call evaluates the prompt's branch alone, whatever the scale of guidance."""


def observe(stock: StockCall) -> tuple[Findings, StepRecord]:
    """Return the findings, and the recorded first step in which the denoiser ran, for one prompt, to prove them by.

    Raises:
        InvalidValue: if something is not found, with what it is.
    """
    steps = stock.fewest_steps
    real = _real(stock, steps)
    template = Template(real.steps[0].calls[0].returned, len(real.steps[0].calls[0].output), real.beside)
    twice = _twice(stock, steps, template, real)
    while len(twice.steps) < 2 and steps < 64:  # an image-to-image call takes a part of the steps
        steps *= 2
        twice = _twice(stock, steps, template, real)
    if len(twice.steps) < 2:
        raise InvalidValue(f"this call takes {len(twice.steps)} of {steps} steps: give it a higher strength")
    if steps != stock.fewest_steps:
        real = _real(stock, steps)
    other = stock.recorded(PROMPTS, NEGATIVES, steps, Watch(StandIn(template, 2), stop_at="step"))
    return _compare(stock, real.steps[0], twice, other.steps[0], template, steps), real.steps[0]


def _real(stock: StockCall, steps: int) -> Recording:
    """The first step of one prompt, with the networks running."""
    seen = stock.recorded(PROMPTS[:1], NEGATIVES[:1], steps, Watch(stop_at="step"))
    if not seen.steps:
        raise InvalidValue("this pipeline's call does not reach scheduler.step: it is not supported")
    calls = len(seen.steps[0].calls)
    if calls == 0:
        raise InvalidValue("this pipeline's denoiser is called through another method than `forward`: not supported")
    if calls > 2:
        raise InvalidValue(
            f"this pipeline evaluates its denoiser {calls} times per step where two branches were expected: {_FURTHER}"
        )
    return seen


def _twice(stock: StockCall, steps: int, template: Template, real: Recording) -> Recording:
    """The whole call for one prompt given twice, with the networks stood in for and gradients recorded."""
    first = real.steps[0].sample
    watch = Watch(StandIn(template, 2, random=True), zero_probe, draws=2 * first.numel() // len(first))
    return stock.recorded(PROMPTS[:1] * 2, NEGATIVES[:1] * 2, steps, watch)


def _compare(
    stock: StockCall, first: StepRecord, twice: Recording, other: StepRecord, template: Template, steps: int
) -> Findings:  # fmt: skip
    start, then = twice.steps[0], twice.steps[1]
    if any(len(step.calls) != len(first.calls) for step in twice.steps):
        raise InvalidValue("this call switches guidance off at some steps: let it hold for all of them")
    axes = _row_paths(first.calls, start.calls)
    in_rows = frozenset(axes)
    axes = {path: axis for path, axis in axes.items() if axis}
    start, then, other = (_with_rows_first(step, axes) for step in (start, then, other))
    latents, joint = _latents(start, then, in_rows)
    sample = tuple(start.sample.shape[1:])
    rule, sign, null_first = _rule(twice.steps, joint, sample)
    moving = _moving(start.calls[0], then.calls[0], in_rows) - set(latents)
    known = moving | set(latents)
    branches = _Branches(joint, null_first, len(start.sample), in_rows, _repeats(start, in_rows - set(latents), joint))
    text = _text(start, other, branches, known)
    if stock.has_negative:
        _require_null(start, other, text, branches)
    aliases = _aliases((start, other), text, in_rows)
    decoder_input, decoder_call = _decoder(twice)
    to_sample = decoder_input.inverse_index()
    place, initial = first_latents(start.sample, twice.draws)
    drawn = tuple(twice.draws[place].shape[1:])
    _require_initial(initial, fixed_noise(place, drawn), first)
    return Findings(
        joint=joint,
        null_first=null_first,
        rows=in_rows,
        axes=axes,
        repeats=branches.repeats,
        latents={path: each.after(to_sample) for path, each in latents.items()},
        moving=frozenset(moving),
        text=tuple(path for path in text if path not in aliases),
        aliases=aliases,
        masks=frozenset(path for path in text if _is_mask(start, other, path, in_rows)),
        alone=any(_lengths(start, path, in_rows) != _lengths(other, path, in_rows) for path in text),
        rule=rule,
        sign=sign,
        sample=sample,
        to_sample=to_sample,
        from_sample=decoder_input.index,
        initial=initial,
        drawn=drawn,
        place=place,
        shape=_image_shape(decoder_input.shape),
        decoder_input=Affine(decoder_input.shape, None, decoder_input.gain, decoder_input.base),
        decoder_call=decoder_call,
        branch=frozenset(path for path in in_rows - set(text) - known if branches.differ(start, path)),
        template=template,
        steps=steps,
        upcasts=twice.upcast,
    )


def _with_rows_first(step: StepRecord, axes: Mapping[str, int]) -> StepRecord:
    calls = [replace(call, arguments=tree.rows_first(call.arguments, axes)) for call in step.calls]
    return replace(step, calls=calls)


@dataclass(frozen=True, slots=True)
class _Branches:
    """Where the rows of the two branches stand in a step's calls; `Findings` says what the attributes are."""

    joint: bool
    null_first: bool
    batch: int
    rows: frozenset[str]
    repeats: Mapping[str, int]

    def of(self, step: StepRecord, path: str) -> tuple[list[Any], list[Any]]:
        """An argument's rows in the null branch, and in the conditional one."""
        given = [leaves(call.arguments, self.rows).get(path, []) for call in step.calls]
        rows = [list(value[:: self.repeats.get(path, 1)]) for value in given]
        first, second = (rows[0][: self.batch], rows[0][self.batch :]) if self.joint else rows
        return (first, second) if self.null_first else (second, first)

    def differ(self, step: StepRecord, path: str) -> bool:
        """Whether an argument's rows, of one prompt given twice, are not all the same."""
        null, cond = self.of(step, path)
        return not all(same(null[0], row) for row in (*null, *cond))


def _row_paths(one: Sequence[DenoiserCall], two: Sequence[DenoiserCall]) -> dict[str, int]:
    """The arguments that have twice as many rows for two prompts as for one, and the dimension of their rows."""
    found: dict[str, int] = {}
    for a, b in zip(one, two, strict=True):
        try:
            found.update(tree.rows(a.arguments, b.arguments))
        except ValueError as error:
            raise InvalidValue(
                f"the denoiser's argument '{error}' grows with the batch in a way that is not known"
            ) from error
    return found


def _latents(start: StepRecord, then: StepRecord, in_rows: frozenset[str]) -> tuple[dict[str, Affine], bool]:
    """How the scheduler's latents enter each call, and whether both branches are rows of one."""
    probe, batch = start.probe, len(start.sample)
    assert probe is not None
    found: dict[str, Affine] = {}
    copies = 0
    for call in then.calls:
        for path, value in leaves(call.arguments, in_rows).items():
            parts = value if isinstance(value, list) else [value]
            if not any(isinstance(part, Tensor) and _depends(part, probe) for part in parts):
                continue
            if path not in in_rows:
                raise InvalidValue(f"the latents enter in a way that is not known: '{path}' mixes the rows of a batch")
            copies = len(value) // batch
            _require_two_branches(len(then.calls), copies)
            each, owners = _affine(value, probe, f"the latents enter in a way that is not known ('{path}')")
            if owners != list(range(batch)) * copies:
                raise InvalidValue(f"the latents enter in an order that is not known: {owners}")
            if path in found and not affine.same(found[path], each):
                raise InvalidValue(f"the latents enter the two branches in different ways ('{path}')")
            found[path] = each
    if not found:
        raise InvalidValue("the denoiser's arguments do not depend on the scheduler's latents in a way that is known")
    return found, copies == 2


def _depends(part: Tensor, probe: Tensor) -> bool:
    try:
        return affine.depends(part, probe)
    except ValueError as error:
        raise InvalidValue(f"the latents enter in a way that is not known: {error}") from error


def _require_two_branches(calls: int, copies: int) -> None:
    if calls * copies == 2:
        return
    if calls * copies == 1:
        raise NoNullBranch("the call evaluates no null branch")
    raise InvalidValue(f"the call evaluates {calls * copies} branches where two were expected: {_FURTHER}")


def _rule(steps: Sequence[StepRecord], joint: bool, sample: tuple[int, ...]) -> tuple[str, int, bool]:
    """How the branches are combined: the rule's name, its sign, and whether the null branch comes first."""
    found = {_match(step, joint, sample) for step in steps}
    answer = found.pop() if len(found) == 1 else None
    if answer is None:
        raise InvalidValue(
            "the two branches are combined in a way that is not known: switch off guidance_rescale; a call that keeps "
            "a part of its latents, such as a first frame, is not supported"
        )
    return answer


def _match(step: StepRecord, joint: bool, sample: tuple[int, ...]) -> tuple[str, int, bool] | None:
    answers = [prediction(call.output, sample) for call in step.calls]
    first, second = answers[0].chunk(2) if joint else answers
    guided = step.model_output
    if guided.shape[1] == 2 * sample[0] and guided.shape[1:] != sample:
        guided = prediction(guided, sample)
    if guided.shape != first.shape:
        return None
    for null_first, (null, cond) in ((True, (first, second)), (False, (second, first))):
        if named := guidance.name_of(null, cond, SCALE, guided):
            return *named, null_first
    return None


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


def _repeats(start: StepRecord, paths: frozenset[str], joint: bool) -> dict[str, int]:
    """How often a row of each argument is repeated for one latent, where it is: once per frame, for instance."""
    expected, found = (2 if joint else 1) * len(start.sample), {}
    for path in paths:
        for value in (there[path] for call in start.calls if path in (there := leaves(call.arguments, paths))):
            times = len(value) // expected
            if times < 2:
                continue
            if not all(same(value[i], value[i - i % times]) for i in range(len(value))):
                raise InvalidValue(f"the denoiser's argument '{path}' has {times} different rows of one latent")
            found[path] = times
    return found


def _text(start: StepRecord, other: StepRecord, branches: _Branches, known: set[str]) -> tuple[str, ...]:
    """The arguments with rows that change with the prompts; others, such as a length, stay as they were recorded."""
    found: set[str] = set()
    for one, two in zip(start.calls, other.calls, strict=True):
        a, b = leaves(one.arguments, branches.rows), leaves(two.arguments, branches.rows)
        found.update(path for path in branches.rows - known if path in a and not same(a[path], b.get(path)))
    return tuple(path for path in leaves(start.calls[0].arguments, branches.rows) if path in found)


def _require_null(start: StepRecord, other: StepRecord, text: Sequence[str], branches: _Branches) -> None:
    for path in text:
        a, b = (branches.of(step, path)[0] for step in (start, other))
        if not all(same(x, y) for x, y in zip(a, b, strict=True)):
            return
    raise InvalidValue("the negative prompt changes nothing in the denoiser's null branch: there is none to optimise")


def _aliases(steps: Sequence[StepRecord], text: Sequence[str], in_rows: frozenset[str]) -> dict[str, str]:
    """The paths of the network beside the denoiser that hold what a path of the denoiser holds, in every call."""
    calls = [leaves(call.arguments, in_rows) for step in steps for call in step.calls]
    found = {}
    for path in text:
        if not path.startswith(f"{BESIDE}."):
            continue
        own = (each for each in text if not each.startswith(f"{BESIDE}."))
        match = next((each for each in own if all(same(call.get(each), call.get(path)) for call in calls)), None)
        if match is None:
            raise InvalidValue(f"the pipeline's {BESIDE} reads another text than its denoiser does in the same branch")
        found[path] = match
    return found


def _lengths(step: StepRecord, path: str, in_rows: frozenset[str]) -> list[Any]:
    there = (leaves(call.arguments, in_rows).get(path, []) for call in step.calls)
    return [shape(row) for value in there for row in value]


def _is_mask(start: StepRecord, other: StepRecord, path: str, in_rows: frozenset[str]) -> bool:
    calls = [leaves(call.arguments, in_rows) for step in (start, other) for call in step.calls]
    values = [row for call in calls for row in call.get(path, []) if isinstance(row, Tensor)]
    return bool(values) and all(v.dim() <= 1 and bool(((v == 0) | (v == 1)).all()) for v in values)


def _decoder(seen: Recording) -> tuple[Affine, tuple[tuple[Any, ...], dict[str, Any]]]:
    """How the last latents become the decoder's input, and the decoder's call."""
    args, kwargs = seen.decoded if seen.decoded is not None else ((), {})
    z = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    last = seen.steps[-1].probe
    if z is None or last is None:
        raise InvalidValue("this pipeline does not end in vae.decode: it is not supported")
    unknown = "the latents reach the decoder in a way that is not known"
    found = _affine(z, last, unknown)[0]
    if not found.permutes:
        raise InvalidValue(f"{unknown}: some of them do not, as where a part of a picture is kept")
    return found, (args, kwargs)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The decoder's layout of one latent without a dimension of single frames."""
    return (shape[0], *shape[2:]) if len(shape) == 4 and shape[1] == 1 else shape


def first_latents(sample: Tensor, draws: Mapping[int, Tensor]) -> tuple[int, Affine]:
    """Return which of a call's draws the first latents are made of, and how.

    Raises:
        InvalidValue: if they are not made of noise that is drawn at once.
    """
    for place, draw in reversed(list(draws.items())):  # earlier ones belong to the encoding of pictures
        if affine.depends(sample, draw):
            return place, _affine(
                sample, draw, "the first latents are made of noise in a way that is not known"
            )[0]  # fmt: skip
    raise InvalidValue("the first latents are not made of normal noise that is drawn at once")


def _require_initial(initial: Affine, noise: Tensor, first: StepRecord) -> None:
    """Refuse first latents that the recording of the real first step does not confirm."""
    expected = initial(noise[None])
    if not torch.allclose(expected, first.sample.float().cpu().reshape(expected.shape), rtol=2e-2, atol=2e-2):
        raise InvalidValue("the first latents are made of noise and of something that differs from call to call")


def _affine(target: Any, source: Tensor, unknown: str) -> tuple[Affine, list[int]]:
    try:
        return affine.found(target, source)
    except ValueError as error:
        raise InvalidValue(f"{unknown}: {error}") from error
