"""Watching a stock pipeline run: what its denoiser, its scheduler and its decoder were given, and what came back.

The pipeline's own call is made, so that everything it does to prompts, sizes, timesteps and latents has happened by
then, with its own code and defaults. The denoiser may be stood in for (it then computes nothing), and the call is
ended as soon as what is wanted was seen. However the call ends, the pipeline is left as it was found.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nulltta.errors import InvalidValue
from nulltta.models.frozen import Frozen
from nulltta.models.offload import set_aside
from nulltta.models.tree import bound, replaced
from nulltta.quiet import quiet_libraries

DENOISERS = ("unet", "transformer", "transformer_2")
"""The components that predict, by diffusers' names."""
_QUIET = ("safety_checker", "watermark")
"""Components that change a finished image: left out of recordings."""


@dataclass(frozen=True, slots=True)
class DenoiserCall:
    """One call of a denoiser: which component, its arguments by name, and what it returned."""

    component: str
    arguments: dict[str, Any]
    returned: Any

    @property
    def output(self) -> Tensor:
        """(R, ...), the prediction in it."""
        return first_tensor(self.returned)


@dataclass(slots=True)
class StepRecord:
    """One step of the scheduler and the denoiser calls before it."""

    calls: list[DenoiserCall]
    model_output: Tensor
    timestep: Any
    sample: Tensor
    scheduler: Any
    probe: Tensor | None = None  # what the scheduler's result was replaced by


@dataclass(slots=True)
class Recording:
    """What was seen.

    Attributes:
        draws: the normal noise that was drawn for whole latents, replaced by zeros with a gradient.
        decoded: (args, kwargs) of the decoder's call.
        result: what the pipeline returned; None if the call was ended early.
        upcast: the decoder was in a higher precision than usual when it was called.
        token_ids: what text encoders were given, by their names.
    """

    steps: list[StepRecord] = field(default_factory=list)
    draws: list[Tensor] = field(default_factory=list)
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
            and from then on gradients are recorded.
    """

    stand_in: Callable[[str, dict[str, Any]], Any] | None = None
    on_step: Callable[[int, StepRecord], Tensor | None] | None = None
    stop_at: str = "decode"
    draws: int | None = None


_ONE_AT_A_TIME = threading.RLock()
"""Two recordings of one pipeline would each take the other's hooks for the pipeline's own."""


class _Stop(BaseException):
    """Everything wanted was seen."""


def denoisers(pipeline: Any) -> dict[str, Any]:
    """The pipeline's denoisers by name."""
    return {name: part for name in DENOISERS if (part := getattr(pipeline, name, None)) is not None}


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
    with ExitStack() as undo:
        undo.enter_context(_ONE_AT_A_TIME)
        undo.enter_context(_restored(pipeline))
        undo.enter_context(quiet_libraries())
        undo.enter_context(_pinned_ambience())
        undo.enter_context(torch.set_grad_enabled(False))
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                undo.enter_context(Frozen(part))
        for name, module in denoisers(pipeline).items():
            undo.enter_context(_overruled(module, "_compiled_call_impl", None))
            forward = _watched_forward(name, module, watch, pending)
            undo.enter_context(_overruled(module, "forward", forward))
        for name in pipeline.components:
            if name.startswith("text_encoder") and isinstance(part := getattr(pipeline, name), torch.nn.Module):
                handle = part.register_forward_pre_hook(functools.partial(_note_ids, seen, name), with_kwargs=True)
                undo.callback(handle.remove)
        if (scheduler := getattr(pipeline, "scheduler", None)) is None:
            raise InvalidValue(f"{type(pipeline).__name__} has no scheduler")
        own = copy.deepcopy(scheduler)
        own.step = _watched_step(own, watch, pending, seen)
        object.__setattr__(pipeline, "scheduler", own)
        decoder = getattr(pipeline, "vae", None)
        if decoder is not None:
            undo.enter_context(_overruled(decoder, "decode", _watched_decode(decoder, watch, seen)))
        if watch.draws is not None:
            undo.enter_context(_NoiseProbe(watch.draws, seen.draws))
        try:
            seen.result = pipeline(**call)
        except _Stop:
            set_aside(pipeline)
    return seen


def _watched_forward(name: str, module: Any, watch: Watch, pending: list[DenoiserCall]) -> Callable[..., Any]:
    forward = module.forward
    signature = getattr(module, "_orig_mod", module).forward  # a compiled module's own takes anything
    mine = threading.get_ident()

    @functools.wraps(signature)  # pipelines look at its parameters
    def watched(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != mine:
            return forward(*args, **kwargs)
        arguments = _kept(bound(signature, args, kwargs))
        output = forward(*args, **kwargs) if watch.stand_in is None else watch.stand_in(name, arguments)
        pending.append(DenoiserCall(name, arguments, output))
        return output

    return watched


def _watched_step(
    scheduler: Any, watch: Watch, pending: list[DenoiserCall], seen: Recording
) -> Callable[..., Any]:  # fmt: skip
    step = scheduler.step

    @functools.wraps(step)
    def watched(*args: Any, **kwargs: Any) -> Any:
        given = bound(step, args, kwargs)
        timestep, sample, prediction = given["timestep"], given["sample"], given["model_output"]
        now = StepRecord(list(pending), prediction.detach(), timestep, sample, copy.copy(scheduler))
        now.scheduler.__dict__.pop("step", None)
        pending.clear()
        seen.steps.append(now)
        if watch.stop_at == "step":
            raise _Stop
        result = step(**given | {"sample": sample.detach(), "model_output": prediction.detach()})
        now.probe = None if watch.on_step is None else watch.on_step(len(seen.steps) - 1, now)
        if now.probe is None:
            return result
        if isinstance(result, tuple):
            return (now.probe, *result[1:])
        result.prev_sample = now.probe
        return result

    return watched


def _watched_decode(decoder: Any, watch: Watch, seen: Recording) -> Callable[..., Any]:
    decode, usual, mine = decoder.decode, decoder.dtype, threading.get_ident()

    @functools.wraps(decode)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != mine:
            return decode(*args, **kwargs)
        if seen.decoded is not None:
            raise InvalidValue("this pipeline decodes its latents in more than one piece, which is not supported")
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


def _kept(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments in containers of their own: pipelines change theirs in place."""
    kept: dict[str, Any] = replaced(arguments, {})
    return kept


class _NoiseProbe(TorchFunctionMode):
    """Replaces this thread's draws of noise for whole latents by zeros with a gradient, in order of drawing."""

    def __init__(self, count: int, draws: list[Tensor]) -> None:
        super().__init__()
        self.count, self.draws = count, draws

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is not torch.randn or result.numel() != self.count:
            return result
        torch.set_grad_enabled(True)  # until the pipeline's own no_grad ends
        probe = torch.zeros_like(result, dtype=torch.float32, requires_grad=True)
        self.draws.append(probe)
        return probe.to(result.dtype)


@contextmanager
def _overruled(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of one object replaced, and put back as it was: absent where the class had it."""
    had, before = name in vars(owner), vars(owner).get(name)
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if had:
            object.__setattr__(owner, name, before)
        else:
            vars(owner).pop(name, None)


@contextmanager
def _restored(pipeline: Any) -> Iterator[None]:
    """Everything that a call changes in a pipeline put back: its attributes, and the decoder's precision."""
    before = {key: value for key, value in vars(pipeline).items() if key != "_all_hooks"}
    precision = getattr(getattr(pipeline, "vae", None), "dtype", None)
    for name in _QUIET:
        if getattr(pipeline, name, None) is not None:
            object.__setattr__(pipeline, name, None)
    object.__setattr__(pipeline, "_progress_bar_config", {"disable": True})
    try:
        yield
    finally:
        state = vars(pipeline)
        hooks = state.get("_all_hooks")
        state.clear()
        state.update(before)
        if hooks is not None:
            state["_all_hooks"] = hooks
        if precision is not None and pipeline.vae.dtype != precision:
            pipeline.vae.to(dtype=precision)  # upcast for decoding by a call that was ended there


@contextmanager
def _pinned_ambience() -> Iterator[None]:
    """float32 as the default dtype, and the global random state untouched."""
    state = torch.get_rng_state()
    try:
        with float32_by_default():
            yield
    finally:
        torch.set_rng_state(state)


@contextmanager
def float32_by_default() -> Iterator[None]:
    """float32 as PyTorch's default dtype, whatever it is outside."""
    dtype = torch.get_default_dtype()
    if dtype == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


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
