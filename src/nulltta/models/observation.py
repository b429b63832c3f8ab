"""What recordings of a stock pipeline show: where the null text is, how latents and time enter, how the two branches
are combined, and how latents reach the decoder. No pipeline is known by name.

Three calls are watched. In the first the denoiser runs, for one step. In the others it is stood in for by random
numbers, and gradients are recorded from the latents on: what depends on the latents, and how, is then differentiated
instead of guessed (`affine`). The second and third differ in their prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models import affine, guidance, tree
from nulltta.models.affine import Affine
from nulltta.models.branches import Branches, aliases_of, is_mask, repeats_of, require_null, row_shapes, text_paths
from nulltta.models.conditioning import NEGATIVES, PROMPTS
from nulltta.models.draws import fixed_noise
from nulltta.models.findings import Findings
from nulltta.models.latents import FURTHER, depends, entering, first_latents, image_shape, require_initial, to_decoder
from nulltta.models.recording import BESIDE, SCALE, DenoiserCall, Recording, StepRecord, Watch, accepts
from nulltta.models.stock_call import StandIn, StockCall, Template, zero_probe
from nulltta.models.tree import equal_in_groups, leaves, same


def observe(stock: StockCall) -> tuple[Findings, StepRecord]:
    """Return the findings, and the recorded first step in which the denoiser ran, for one prompt, to prove them by.

    Raises:
        InvalidValue: if something is not found, with what it is.
    """
    fewest = steps = stock.asked_for(2)
    real = _real(stock, steps)
    template = Template(real.steps[0].calls[0].returned, len(real.steps[0].calls[0].output), real.beside)
    twice = _twice(stock, steps, template, real)
    while len(twice.steps) < 2 and steps < 64:  # an image-to-image call takes a part of the steps
        steps *= 2
        twice = _twice(stock, steps, template, real)
    if len(twice.steps) < 2:
        raise InvalidValue(f"this call takes {len(twice.steps)} of {steps} steps: give it a higher strength")
    if steps != fewest:
        real = _real(stock, steps)
    if len(twice.draws) > 1:  # the noise of a picture's encoding has the same size
        twice = _twice(stock, steps, template, real, first_latents(twice.steps[0].sample, twice.draws)[0])
    last = stock.rows
    watch = Watch(StandIn(template, last), stop_at="step")
    other = stock.recorded(PROMPTS[-last:], NEGATIVES[-last:], steps, watch)
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
            f"this pipeline evaluates its denoiser {calls} times per step where two branches were expected: {FURTHER}"
        )
    return seen


def _twice(
    stock: StockCall, steps: int, template: Template, real: Recording, place: int | None = None
) -> Recording:  # fmt: skip
    """The whole call, for one prompt given twice if it takes two, with the networks stood in for and gradients
    recorded."""
    first = real.steps[0].sample
    rows, draws = stock.rows, stock.rows * first.numel() // len(first)

    def watched(larger: bool) -> Recording:
        stand_in = StandIn(template, rows, random=True)
        watch = Watch(stand_in, zero_probe, draws=draws, place=place, larger=larger)
        found = stock.recorded(PROMPTS[:1] * rows, NEGATIVES[:1] * rows, steps, watch)
        _refuse_further(found, stand_in.further)
        return found

    seen = watched(larger=False)
    made_of_them = any(affine.depends(seen.steps[0].sample, draw) for draw in seen.draws.values())
    return seen if made_of_them else watched(larger=True)  # a part of the noise is left out, such as a first frame's


def _refuse_further(seen: Recording, further: Sequence[Tensor]) -> None:
    """Refuse a call that gives its denoiser what it returned beside its prediction, such as the latents of a sound."""
    for call in (call for step in seen.steps[1:] for call in step.calls):
        for path, value in leaves(call.arguments).items():
            if isinstance(value, Tensor) and any(affine.depends(value, each) for each in further):
                raise InvalidValue(
                    f"this call denoises something else beside the latents, such as a sound ('{path}'), which is not "
                    "supported"
                )


def _compare(
    stock: StockCall, first: StepRecord, twice: Recording, other: StepRecord, template: Template, steps: int
) -> Findings:  # fmt: skip
    start, then = twice.steps[0], twice.steps[1]
    if any(len(step.calls) != len(first.calls) for step in twice.steps):
        raise InvalidValue(
            "this call evaluates its denoiser more often at some steps than at others: let guidance hold for all of "
            "them; a call that draws its frames one part after another is not supported"
        )
    probe = start.probe
    assert probe is not None
    axes = _row_paths(first.calls, start.calls) if stock.rows > 1 else _own_rows(then, probe)
    in_rows = frozenset(axes)
    axes = {path: axis for path, axis in axes.items() if axis}
    start, then, other = (_arranged(step, partial(tree.rows_first, axes=axes)) for step in (start, then, other))
    frames = _frames(then, in_rows, probe)
    start, then, other = (_arranged(step, partial(tree.grouped, frames=frames)) for step in (start, then, other))
    latents, joint = entering(start, then, in_rows)
    sample = tuple(start.sample.shape[1:])
    (rule, sign, null_first), predicted = _rule(stock, twice.steps, joint, sample, template, steps)
    moving = _moving(start.calls[0], then.calls[0], in_rows) - set(latents)
    known = moving | set(latents)
    branches = Branches(joint, null_first, len(start.sample), in_rows, repeats_of(start, in_rows - set(latents), joint))
    text = text_paths(start, other, branches, known)
    if stock.has_negative:
        require_null(start, other, text, branches)
    aliases = aliases_of((start, other), text, in_rows)
    decoder_input, decoder_rows, decoder_call = to_decoder(twice)
    whole = decoder_input.permutes
    to_sample = decoder_input.inverse_index() if whole else None
    own_layout = Affine(decoder_input.shape, None, decoder_input.gain, decoder_input.base) if whole else decoder_input
    place, initial = first_latents(start.sample, twice.draws)
    drawn = tuple(twice.draws[place].shape[1:])
    require_initial(initial, fixed_noise(place, drawn), first)
    return Findings(
        joint=joint,
        null_first=null_first,
        rows=in_rows,
        axes=axes,
        repeats=branches.repeats,
        frames=frames,
        latents={path: each.after(to_sample) for path, each in latents.items()},
        moving=frozenset(moving),
        text=tuple(path for path in text if path not in aliases),
        aliases=aliases,
        masks=frozenset(path for path in text if is_mask(start, other, path, in_rows)),
        alone=any(row_shapes(start, path, in_rows) != row_shapes(other, path, in_rows) for path in text),
        rule=rule,
        sign=sign,
        sample=sample,
        predicted=predicted,
        to_sample=to_sample,
        from_sample=decoder_input.index if whole else None,
        initial=initial,
        drawn=drawn,
        place=place,
        shape=image_shape(decoder_input.shape) if whole else sample,
        decoder_input=own_layout,
        decoder_rows=decoder_rows,
        decoder_call=decoder_call,
        branch=frozenset(path for path in in_rows - set(text) - known if branches.differ(start, path)),
        template=template,
        steps=steps,
        singly=stock.rows == 1,
        upcasts=twice.upcast,
    )


def _arranged(step: StepRecord, arrange: Callable[[dict[str, Any]], dict[str, Any]]) -> StepRecord:
    return replace(step, calls=[replace(call, arguments=arrange(call.arguments)) for call in step.calls])


def _frames(then: StepRecord, in_rows: frozenset[str], latents: Tensor) -> dict[str, int]:
    """How many rows of an argument belong to one row of the denoiser's output, where these differ: the frames that a
    network beside the denoiser sees one by one."""
    found: dict[str, int] = {}
    for call in then.calls:
        there = leaves(call.arguments, in_rows)
        for path in in_rows & there.keys():
            value, count = there[path], len(call.output)
            if not _has_rows(value, count) or (times := len(value) // count) == 1:
                continue
            if depends(value, latents) or not equal_in_groups(value, times):
                found[path] = times
    return found


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


def _own_rows(then: StepRecord, latents: Tensor) -> dict[str, int]:
    """The arguments with as many rows as the denoiser's output, where only calls for one prompt can be compared, or
    with a multiple of them that are equal, or as many as the frames of a latent; the dimension of rows is the first."""
    found: dict[str, int] = {}
    for call in then.calls:
        count = len(call.output)
        lists = _lists_of_rows(call.arguments, count)
        there = leaves(call.arguments, lists)
        times = {path: len(value) // count for path, value in there.items() if _has_rows(value, count)}
        frames = {times[path] for path in times if depends(there[path], latents)}
        copied = {path for path in times if count > 1 and equal_in_groups(there[path], times[path])}
        found |= {path: 0 for path in times if times[path] == 1 or times[path] in frames or path in copied}
        found |= dict.fromkeys(lists, 0)
    return found


def _lists_of_rows(arguments: Mapping[str, Any], count: int) -> frozenset[str]:
    """The lists of one tensor for each of `count` rows, as Z-Image's latents; not those of tensors that have rows."""
    beside = {f"{BESIDE}.{name}": value for name, value in arguments.get(BESIDE, {}).items()}
    of_rows = {
        path for path, value in {**arguments, **beside}.items()
        if isinstance(value, list) and len(value) == count > 1
        and all(isinstance(each, Tensor) and len(each) != count for each in value)
    }  # fmt: skip
    return frozenset(of_rows)


def _has_rows(value: Any, count: int) -> bool:
    """Whether a value is a tensor of `count` rows, or of a multiple of them."""
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) > 0 and len(value) % count == 0


Combination = tuple[str, int, bool]
"""How the branches are combined: the rule's name, its sign, and whether the null branch comes first."""


def _rule(
    stock: StockCall, seen: Sequence[StepRecord], joint: bool, sample: tuple[int, ...], template: Template, steps: int
) -> tuple[Combination, Tensor | None]:
    """How the branches are combined, and which elements of the denoiser's output are the prediction.

    Raises:
        InvalidValue: if that is not known.
    """
    if (combination := _combination(seen, joint, sample, None)) is not None:
        return combination, None
    predicted = _predicted(stock, template, steps)
    if predicted is not None and (combination := _combination(seen, joint, sample, predicted)) is not None:
        return combination, predicted
    for call in seen[0].calls:
        prediction(call.output, sample)
    remedy = ": switch off guidance_rescale" if accepts(stock.pipeline, "guidance_rescale") else ""
    raise InvalidValue(f"the two branches are combined in a way that is not known{remedy}")


def _predicted(stock: StockCall, template: Template, steps: int) -> Tensor | None:
    """Which elements of the denoiser's output the scheduler is given, by differentiation; None if it mixes them."""
    rows = stock.rows
    stand_in = StandIn(template, rows, random=True, traced=True)
    step = stock.recorded(PROMPTS[:1] * rows, NEGATIVES[:1] * rows, steps, Watch(stand_in, stop_at="step")).steps[0]
    assert stand_in.made is not None
    try:
        found = affine.of_row(step.model_output[0], stand_in.made, 0)
    except ValueError:
        return None
    if found.index is None:
        return torch.arange(len(step.model_output[0].flatten()))
    size = stand_in.made[0].numel()
    last = bool(found.index.max() == size - 1) and bool(found.index.min() > 0)
    return found.index - size if last else found.index  # counted from the end where texts of any length come first


def _combination(
    steps: Sequence[StepRecord], joint: bool, sample: tuple[int, ...], predicted: Tensor | None
) -> Combination | None:
    """How the branches are combined at all steps; None if in no way that is known."""
    found = set.intersection(*(_matches(step, joint, sample, predicted) for step in steps))
    return min(found, key=lambda match: list(guidance.RULES).index(match[0]), default=None)


def _matches(
    step: StepRecord, joint: bool, sample: tuple[int, ...], predicted: Tensor | None
) -> set[Combination]:  # fmt: skip
    try:
        answers = [prediction(call.output, sample, predicted) for call in step.calls]
    except InvalidValue:
        return set()
    first, second = answers[0].chunk(2) if joint else answers
    guided = step.model_output
    if guided.shape[1] == 2 * sample[0] and guided.shape[1:] != sample:
        guided = prediction(guided, sample)
    if guided.shape != first.shape:
        return set()
    orders = {True: (first, second), False: (second, first)}
    return {
        (*named, null_first)
        for null_first, (null, cond) in orders.items()
        for named in guidance.names_of(null, cond, SCALE, guided)
    }


def prediction(output: Tensor, sample: Sequence[int], predicted: Tensor | None = None) -> Tensor:
    """A denoiser's output (R, ...) as predictions in the scheduler's layout.

    What follows a prediction is left out: a learnt variance, or the tokens of a picture beside the latents.

    Args:
        output: of the denoiser.
        sample: the shape of one latent as the scheduler sees it.
        predicted: which elements of a row are the prediction, in the scheduler's order; None if the shapes say it.

    Raises:
        InvalidValue: if it has another size.
    """
    count = torch.Size(sample).numel()
    if predicted is not None:
        return output.flatten(1)[:, predicted.to(output.device)].reshape(len(output), *sample)
    if output[0].numel() == count:
        return output.reshape(len(output), *sample)
    if output.shape[2:] == torch.Size(sample[1:]) and output.shape[1] > sample[0]:
        return output[:, : sample[0]]
    if output[0].numel() == 2 * count and output.shape[1] % 2 == 0:
        return output[:, : output.shape[1] // 2].reshape(len(output), *sample)
    raise InvalidValue(
        f"the denoiser's output has shape {tuple(output.shape[1:])}, the latents {tuple(sample)}: how one becomes the "
        "other is not known"
    )


def _moving(start: DenoiserCall, then: DenoiserCall, in_rows: frozenset[str]) -> set[str]:
    one, two = leaves(start.arguments, in_rows), leaves(then.arguments, in_rows)
    return {path for path in one if not same(one[path], two.get(path))}
