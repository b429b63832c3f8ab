"""Putting a null text into the unconditional rows of ComfyUI's denoiser calls. Knows ComfyUI by its contract only.

ComfyUI's sampler evaluates both branches of guidance through one function, which a MODEL's `model_function_wrapper` may
wrap (comfy/samplers.py). It is called with `apply_model` and a dictionary:

    input           (N·B, C, h, w): latents, for N chunks of B rows
    timestep        (N·B,): sigma
    cond_or_uncond  one number per chunk: 0 for the prompt, 1 for the negative prompt
    c               "c_crossattn" (N·B, L, D), the text; for SDXL and SD3 "y" (N·B, ...), which begins with the pooled
                    text; and others

Chunks come in any order, and where memory is short each in a call of its own. Texts of different lengths are repeated
to a common one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import DoesNotFit

TEXT, POOLED = "c_crossattn", "y"
PLACES: Mapping[str, str] = {
    "encoder_hidden_states": TEXT,
    "added_cond_kwargs.text_embeds": POOLED,
    "pooled_projections": POOLED,
}
"""By the denoiser's argument in diffusers, which names a null text's tensors, ComfyUI's."""
PROMPT, NULL = 0, 1

Wrapper = Callable[[Callable[..., Tensor], dict[str, Any]], Tensor]


def require_known(null_text: Any) -> None:
    """Refuse a null text with tensors that ComfyUI has no place for, or for another guidance than classifier-free.

    Raises:
        DoesNotFit: if it is one.
    """
    if getattr(null_text, "about", {}).get("config", {}).get("guidance", "cfg") != "cfg":
        raise DoesNotFit("the null text was learnt under normalized attention guidance: use apply or replay")
    if unknown := set(null_text.paths) - PLACES.keys():
        raise DoesNotFit(f"ComfyUI has no place for the null text's '{min(unknown)}': use it in diffusers")


def wrapper(
    null_text: Any, timestep_of: Callable[[Tensor], Tensor], positive: Any = None, inner: Wrapper | None = None
) -> Wrapper:
    """Return a `model_function_wrapper` that evaluates the unconditional rows under a null text.

    Args:
        null_text: a `NullText` or a `FittedNullText`.
        timestep_of: turns sigmas into the timesteps of the model's training (`model_sampling.timestep`).
        positive: the prompt's CONDITIONING, for null texts that depend on the prompt where the two branches are
            evaluated in calls of their own; None if there is none.
        inner: the wrapper that the MODEL had before, which is called with the new rows.

    Raises:
        DoesNotFit: if the null text has tensors that ComfyUI has no place for.
    """
    require_known(null_text)

    def with_null_text(apply_model: Callable[..., Tensor], call: dict[str, Any]) -> Tensor:
        if NULL in call["cond_or_uncond"]:
            time = float(timestep_of(call["timestep"][:1]).flatten()[0])
            call = {**call, "c": replaced(null_text, null_text.nearest(time), call, positive)}
        if inner is not None:
            return inner(apply_model, call)
        return apply_model(call["input"], call["timestep"], **call["c"])

    return with_null_text


def replaced(null_text: Any, index: int, call: Mapping[str, Any], positive: Any = None) -> dict[str, Any]:
    """Return a call's conditioning with the null text's step `index` in every unconditional chunk.

    Raises:
        DoesNotFit: if the call's text has another shape than the null text.
    """
    kinds, given = list(call["cond_or_uncond"]), call["c"]
    tensors = {path: given.get(PLACES[path]) for path in null_text.paths}
    for path, tensor in tensors.items():
        if tensor is None:
            raise DoesNotFit(f"the null text has '{path}', and this model's calls have none: it is for another model")
    count = len(given[TEXT]) // len(kinds)
    new = {PLACES[path]: tensor.clone() for path, tensor in tensors.items()}
    for chunk in (i for i, kind in enumerate(kinds) if kind == NULL):
        rows = slice(chunk * count, (chunk + 1) * count)
        null = {path: _alone(null_text, path, tensor[rows]) for path, tensor in tensors.items()}
        cond = _prompt(null_text, tensors, kinds, count, positive) or null
        for path, values in null_text.rows(index, null, cond).items():
            _put(new[PLACES[path]][rows], torch.stack(list(values)))
    return {**given, **new}


def _prompt(
    null_text: Any, tensors: Mapping[str, Tensor], kinds: list[int], count: int, positive: Any
) -> dict[str, Tensor] | None:
    """Return the prompt's rows: of this call, or of the CONDITIONING; None where they play no part.

    Raises:
        DoesNotFit: if the null text depends on the prompt, and it is in neither.
    """
    if getattr(null_text, "about", {}).get("form") != "prompt":
        return None
    if PROMPT in kinds:
        first = kinds.index(PROMPT) * count
        held = {path: tensor[first : first + count] for path, tensor in tensors.items()}
    elif positive is not None:
        text, more = positive[0]
        held = {path: text if PLACES[path] == TEXT else more["pooled_output"] for path in tensors}
    else:
        raise DoesNotFit(
            "this null text depends on the prompt, which is not in the same call: connect the positive conditioning to "
            "Apply Null Text"
        )
    found = {}
    for path, value in held.items():
        size = _size(null_text, path)
        rows = value if len(size) == 2 else value[:, : size[0]]
        found[path] = rows.to(tensors[path]).expand(count, *rows.shape[1:])
    return found


def _size(null_text: Any, path: str) -> tuple[int, ...]:
    """Return the shape of one row of a null text's tensor: (L, D), or (D,) for a pooled text."""
    form = getattr(null_text, "form", None)
    return tuple(form.shapes[path] if form is not None else null_text.null[path].shape)


def _alone(null_text: Any, path: str, rows: Tensor) -> Tensor:
    """Return the text that ComfyUI repeated to a common length, or the pooled text before what follows it.

    Raises:
        DoesNotFit: if the text has another shape than the null text.
    """
    size, found = _size(null_text, path), tuple(rows.shape[1:])
    if len(size) == 1 and len(found) == 1 and size[0] <= found[0]:
        return rows[:, : size[0]]
    if len(size) != 2 or len(found) != 2 or size[1] != found[1]:
        raise DoesNotFit(
            f"the null text's '{path}' has shape {size}, the model's text {found}: it is for another model"
        )
    alone = rows[:, : size[0]]
    times, rest = divmod(found[0], size[0])
    if rest or not torch.equal(rows, alone.repeat(1, times, 1)):
        raise DoesNotFit(f"the negative prompt has {found[0]} tokens, the null text {size[0]}: shorten it")
    return alone


def _put(there: Tensor, learnt: Tensor) -> None:
    """Write a null text into a call's rows, repeated where ComfyUI repeats shorter texts."""
    if learnt.dim() == 2:
        there[:, : learnt.shape[1]] = learnt.to(there)
    else:
        there.copy_(learnt.to(there).repeat(1, there.shape[1] // learnt.shape[1], 1))
