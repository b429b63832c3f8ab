"""Watching a stock pipeline run: what its denoiser, its scheduler and its decoder were given, and what came back.

The pipeline's own call is made, so that everything it does to prompts, sizes, timesteps and latents has happened by
then, with its own code and defaults. The denoiser may be stood in for (it then computes nothing), and the call is
ended as soon as what is wanted was seen. However the call ends, the pipeline is left as it was found.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models.draws import Draws
from nulltta.models.frozen import Frozen
from nulltta.models.offload import set_aside
from nulltta.models.restoring import overruled, pinned_ambience, restored
from nulltta.models.tree import bound, leaves, replaced
from nulltta.quiet import quiet_libraries

DENOISERS = ("unet", "transformer", "transformer_2")
"""The components that predict, by diffusers' names."""
BESIDE = "controlnet"
"""The component that diffusers' pipelines evaluate at each step beside the denoiser, and whose outputs they give it."""

SCALE = 3.0
"""The scale of guidance in recordings: above 1, so that both branches are evaluated."""
PIECES = "this pipeline decodes its latents in more than one piece: raise decode_chunk_size, if its call has it"


@dataclass(frozen=True, slots=True)
class DenoiserCall:
    """One call of a denoiser.

    Attributes:
        component: which one, by its name in the pipeline.
        arguments: by name. The arguments of a network beside the denoiser (a ControlNet) whose outputs this call was
            given stand under that network's name.
        returned: what it returned.
        wires: the network and the path of its output by the path of the argument that it was given as.
    """

    component: str
    arguments: dict[str, Any]
    returned: Any
    wires: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def output(self) -> Tensor:
        """(R, ...), the prediction in it."""
        return first_tensor(self.returned)


STEP_TENSORS = ("model_output", "timestep", "sample", "old_pred_original_sample", "timestep_back")
"""The tensors that a scheduler's step is given where it leads from one noise level to the next, the last two by those
that look back at earlier steps."""


@dataclass(slots=True)
class StepRecord:
    """One step of the scheduler and the denoiser calls before it.

    Attributes:
        calls: of the denoiser.
        model_output: what the scheduler was given as the prediction, one row per prompt.
        timestep: as the scheduler was given it.
        sample: the scheduler's latents, one row per prompt.
        scheduler: a copy of it, as it was before the step.
        given: the latents as the scheduler has them, with one row per frame in some pipelines.
        probe: what the scheduler's result was replaced by, one row per prompt.
    """

    calls: list[DenoiserCall]
    model_output: Tensor
    timestep: Any
    sample: Tensor
    scheduler: Any
    given: Tensor
    probe: Tensor | None = None


@dataclass(slots=True)
class Recording:
    """What was seen.

    Attributes:
        draws: the normal noise that was drawn for whole latents, replaced by zeros with a gradient, by its place among
            the call's draws (`fixed_noise`).
        beside: what the network beside the denoiser returned, at its first call.
        decoded: (args, kwargs) of the decoder's call.
        result: what the pipeline returned; None if the call was ended early.
        upcast: the decoder was in a higher precision than usual when it was called.
        token_ids: what text encoders were given, by their names.
    """

    steps: list[StepRecord] = field(default_factory=list)
    draws: dict[int, Tensor] = field(default_factory=dict)
    beside: Any = None
    decoded: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    result: Any = None
    upcast: bool = False
    token_ids: list[tuple[str, Tensor]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Watch:
    """How to watch a call.

    Attributes:
        stand_in: (denoiser's name, arguments) -> its output in its place; None to let it run.
        on_step: (index, step) -> what replaces the scheduler's result; None, or returning None, to keep it.
        stop_at: end the call at the first step of the scheduler ("step"), at the decoder ("decode") or not at all.
        draws: how many elements the noise for whole latents has: such draws are replaced by zeros with a gradient,
            and from then on gradients are recorded. Every other draw is the same in all rows and in all recordings.
        place: that of the only draw to replace; None for all that are of that size.
        larger: the noise may have more elements too, of which the latents take a part.
    """

    stand_in: Callable[[str, dict[str, Any]], Any] | None = None
    on_step: Callable[[int, StepRecord], Tensor | None] | None = None
    stop_at: str = "decode"
    draws: int | None = None
    place: int | None = None
    larger: bool = False


_ONE_AT_A_TIME = threading.RLock()
"""Two recordings of one pipeline would each take the other's hooks for the pipeline's own."""


class _Stop(BaseException):
    """Everything wanted was seen."""


def denoisers(pipeline: Any) -> dict[str, Any]:
    """The pipeline's denoisers by name."""
    return {name: part for name in DENOISERS if (part := getattr(pipeline, name, None)) is not None}


def at_scale(pipeline: Any, scale: float) -> Any:
    """Return a copy of the object that guides, in pipelines that have one, at a scale; None in others."""
    guider: Any = getattr(pipeline, "guider", None)
    if not hasattr(guider, "guidance_scale"):
        return None
    own = copy.deepcopy(guider)
    own.guidance_scale = scale
    return own


def first_tensor(output: Any) -> Tensor:
    """A denoiser's output as one tensor (R, ...): rows that came as a list are stacked."""
    first = output if isinstance(output, Tensor) else output[0]
    return torch.stack(list(first)) if isinstance(first, list | tuple) else first


def returned_like(template: Any, prediction: Tensor) -> Any:
    """What a denoiser returns, with another prediction in it."""
    if isinstance(template, Tensor):
        return prediction
    value = list(prediction) if isinstance(template[0], list | tuple) else prediction
    if isinstance(template, tuple):
        return (value, *template[1:])
    name = next(iter(template.keys()))
    return type(template)(**{**template, name: value})


def record(pipeline: Any, call: dict[str, Any], watch: Watch) -> Recording:
    """Make the pipeline's call and return what was seen of it.

    Raises:
        InvalidValue: if the pipeline has no scheduler.
    """
    seen = Recording()
    pending: list[DenoiserCall] = []
    beside: list[DenoiserCall] = []
    with ExitStack() as undo:
        undo.enter_context(_ONE_AT_A_TIME)
        undo.enter_context(restored(pipeline))
        undo.enter_context(quiet_libraries())
        undo.enter_context(pinned_ambience())
        undo.enter_context(torch.set_grad_enabled(False))
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                undo.enter_context(Frozen(part))
        for name, module in denoisers(pipeline).items():
            undo.enter_context(overruled(module, "_compiled_call_impl", None))
            forward = _watched_forward(name, module, watch, pending, beside)
            undo.enter_context(overruled(module, "forward", forward))
        if (network := getattr(pipeline, BESIDE, None)) is not None:
            undo.enter_context(overruled(network, "_compiled_call_impl", None))
            undo.enter_context(overruled(network, "forward", _watched_beside(network, watch, beside, seen)))
        for name in pipeline.components:
            if name.startswith("text_encoder") and isinstance(part := getattr(pipeline, name), torch.nn.Module):
                handle = part.register_forward_pre_hook(functools.partial(_note_ids, seen, name), with_kwargs=True)
                undo.callback(handle.remove)
        if (scheduler := getattr(pipeline, "scheduler", None)) is None:
            raise InvalidValue(f"{type(pipeline).__name__} has no scheduler")
        own = copy.deepcopy(scheduler)
        own.step = _OwnStep(own, _watched_step(own, watch, pending, seen, _prompts_of(call)))
        object.__setattr__(pipeline, "scheduler", own)
        if (guider := at_scale(pipeline, SCALE)) is not None:
            object.__setattr__(pipeline, "guider", guider)
        decoder = getattr(pipeline, "vae", None)
        if decoder is not None:
            undo.enter_context(overruled(decoder, "decode", _watched_decode(decoder, watch, seen)))
        undo.enter_context(Draws({}, watch.draws, seen.draws, watch.place, watch.larger))
        try:
            seen.result = pipeline(**call)
        except _Stop:
            set_aside(pipeline)
    return seen


def _watched_forward(
    name: str, module: Any, watch: Watch, pending: list[DenoiserCall], beside: Sequence[DenoiserCall]
) -> Callable[..., Any]:
    forward = module.forward
    signature = getattr(module, "_orig_mod", module).forward  # a compiled module's own takes anything
    mine = threading.get_ident()

    @functools.wraps(signature)  # pipelines look at its parameters
    def watched(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != mine:
            return forward(*args, **kwargs)
        arguments = _kept(bound(signature, args, kwargs))
        output = forward(*args, **kwargs) if watch.stand_in is None else watch.stand_in(name, arguments)
        call = _wired(DenoiserCall(name, arguments, output), beside)
        pending.append(dataclasses.replace(call, arguments=_untouched(call.arguments)))
        return output

    return watched


def _watched_beside(network: Any, watch: Watch, calls: list[DenoiserCall], seen: Recording) -> Callable[..., Any]:
    forward = network.forward

    @functools.wraps(forward)
    def watched(*args: Any, **kwargs: Any) -> Any:
        arguments = _kept(bound(forward, args, kwargs))
        output = forward(*args, **kwargs) if watch.stand_in is None else watch.stand_in(BESIDE, arguments)
        seen.beside = output if seen.beside is None else seen.beside
        calls[:] = [DenoiserCall(BESIDE, arguments, output)]
        return output

    return watched


def _wired(call: DenoiserCall, beside: Sequence[DenoiserCall]) -> DenoiserCall:
    """The call with the arguments of the networks whose very outputs it was given, in the place of those outputs."""
    given = leaves(call.arguments)
    arguments, wires = call.arguments, {}
    for other in beside:
        outputs = {id(value): path for path, value in leaves(other.returned).items() if isinstance(value, Tensor)}
        found = {path: (other.component, outputs[id(value)]) for path, value in given.items() if id(value) in outputs}
        if found:
            arguments = {**replaced(arguments, dict.fromkeys(found)), other.component: other.arguments}
            wires.update(found)
    return dataclasses.replace(call, arguments=arguments, wires=wires)


def _prompts_of(call: Mapping[str, Any]) -> int:
    """Return the number of prompts of a call, which are texts or embeddings."""
    rows = call["prompt"]
    if rows is None:
        rows = next(value for name, value in call.items() if name.startswith("prompt_") and value is not None)
    return 1 if isinstance(rows, str) else len(rows)


def _by_prompt(rows: Tensor, prompts: int) -> Tensor:
    """Return rows with all those of a prompt, such as its frames, in one."""
    return rows if len(rows) == prompts or len(rows) % prompts else rows.reshape(prompts, -1, *rows.shape[1:])


class _OwnStep:
    """The watched step of one scheduler. A copy that the pipeline makes of it, for a sound or for single frames, has
    the step of its class."""

    def __init__(self, scheduler: Any, step: Callable[..., Any]) -> None:
        self.scheduler, self.step = scheduler, step
        functools.update_wrapper(self, step)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.step(*args, **kwargs)

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Any:
        twin = memo.get(id(self.scheduler))
        return self if twin is None else MethodType(type(twin).step, twin)


def _watched_step(
    scheduler: Any, watch: Watch, pending: list[DenoiserCall], seen: Recording, prompts: int
) -> Callable[..., Any]:  # fmt: skip
    step = scheduler.step

    @functools.wraps(step)
    def watched(*args: Any, **kwargs: Any) -> Any:
        given = bound(step, args, kwargs)
        if own := [name for name, value in given.items() if isinstance(value, Tensor) and name not in STEP_TENSORS]:
            raise InvalidValue(f"the call steers its scheduler's steps by {own[0]}, which is not supported")
        timestep, sample, prediction = given["timestep"], given["sample"], given["model_output"]
        whole = _by_prompt(sample.clone() if sample.requires_grad else sample, prompts)
        predicted = _by_prompt(prediction, prompts)
        now = StepRecord(list(pending), predicted, timestep, whole, copy.copy(scheduler), sample)
        now.scheduler.__dict__.pop("step", None)
        pending.clear()
        seen.steps.append(now)
        if watch.stop_at == "step":
            raise _Stop
        result = step(**given | {"sample": sample.detach(), "model_output": prediction.detach()})
        now.probe = None if watch.on_step is None else watch.on_step(len(seen.steps) - 1, now)
        if now.probe is None:
            return result
        if isinstance(result, tuple):  # a consistency model's pipeline decodes the clean estimate beside the result
            first = result[0]
            # In the latents' own dtype, because some pipelines give the denoiser its time in it.
            probe = now.probe.to(first.dtype, copy=True).reshape(first.shape)
            return tuple(probe if getattr(value, "shape", None) == first.shape else value for value in result)
        result.prev_sample = now.probe.to(result.prev_sample.dtype, copy=True).reshape(sample.shape)
        return result

    return watched


def _watched_decode(decoder: Any, watch: Watch, seen: Recording) -> Callable[..., Any]:
    decode, usual, mine = decoder.decode, decoder.dtype, threading.get_ident()

    @functools.wraps(decode)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != mine:
            return decode(*args, **kwargs)
        if seen.decoded is not None:
            raise InvalidValue(PIECES)
        seen.decoded, seen.upcast = (args, kwargs), decoder.dtype != usual
        if watch.stop_at == "decode":
            raise _Stop
        return decode(*args, **kwargs)

    return watched


def _note_ids(seen: Recording, name: str, module: Any, args: Any, kwargs: Any) -> None:
    del module
    ids = kwargs.get("input_ids", args[0] if args else None)
    if isinstance(ids, Tensor) and not ids.is_floating_point():
        seen.token_ids.append((name, ids))


def _untouched(arguments: dict[str, Any]) -> dict[str, Any]:
    """Copies of what depends on the latents: some pipelines write a step's result into the tensor that they gave."""
    traced = {path: v for path, v in leaves(arguments).items() if isinstance(v, Tensor) and v.requires_grad}
    own: dict[str, Any] = replaced(arguments, {path: value.clone() for path, value in traced.items()})
    return own


def _kept(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments in containers of their own: pipelines change theirs in place."""
    kept: dict[str, Any] = replaced(arguments, {})
    return kept


def accepts(pipeline: Any, name: str) -> bool:
    """Whether the pipeline's call has an argument of this name."""
    return name in call_parameters(type(pipeline))


def call_parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The parameters of a pipeline class's call by name, and where it passes on **kwargs, those of its base's call."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__call__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__call__"]).parameters
        named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        found = named | found
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return found
