"""How latents are made of noise, enter the denoiser, and reach the decoder: found by differentiation (`affine`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models import affine
from nulltta.models.affine import Affine
from nulltta.models.recording import PIECES, Recording, StepRecord
from nulltta.models.tree import leaves

FURTHER = "switch off further guidance (pag_scale, skip_guidance_layers) and caches"
"""What to do where more than two branches are evaluated."""


class NoNullBranch(InvalidValue):
    """The pipeline's call evaluates the prompt's branch alone, whatever the scale of guidance."""


def entering(start: StepRecord, then: StepRecord, in_rows: frozenset[str]) -> tuple[dict[str, Affine], bool]:
    """Return how the scheduler's latents enter each call, and whether both branches are rows of one.

    Raises:
        InvalidValue: if they enter in a way that is not known, or the call does not evaluate two branches.
    """
    probe, batch = start.probe, len(start.sample)
    assert probe is not None
    found: dict[str, Affine] = {}
    copies = 0
    for call in then.calls:
        for path, value in leaves(call.arguments, in_rows).items():
            parts = value if isinstance(value, list) else [value]
            if not any(isinstance(part, Tensor) and depends(part, probe) for part in parts):
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


def depends(part: Tensor, probe: Tensor) -> bool:
    """Return whether what a denoiser is given was computed from the latents.

    Raises:
        InvalidValue: if that cannot be told.
    """
    try:
        return affine.depends(part, probe)
    except ValueError as error:
        raise InvalidValue(f"the latents enter in a way that is not known: {error}") from error


def _require_two_branches(calls: int, copies: int) -> None:
    if calls * copies == 2:
        return
    if calls * copies == 1:
        raise NoNullBranch("the call evaluates no null branch")
    raise InvalidValue(f"the call evaluates {calls * copies} branches where two were expected: {FURTHER}")


def to_decoder(seen: Recording) -> tuple[Affine, int, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return how the last latents become the decoder's input, how many of its rows are one latent's, and its call.

    Raises:
        InvalidValue: if they become it in a way that is not known.
    """
    args, kwargs = seen.decoded if seen.decoded is not None else ((), {})
    z = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    last = seen.steps[-1].probe
    if z is None or last is None:
        raise InvalidValue("this pipeline does not end in vae.decode: it is not supported")
    frames = 1 if len(z) % len(last) else len(z) // len(last)
    rows = z if frames == 1 else z.reshape(len(last), frames, *z.shape[1:])
    unknown = "the latents reach the decoder in a way that is not known"
    if frames > 1 and _owners(rows, last, unknown) != [[i] for i in range(len(last))]:
        raise InvalidValue(PIECES)
    return _affine(rows, last, unknown)[0], frames, (args, kwargs)


def _owners(rows: Tensor, source: Tensor, unknown: str) -> list[list[int]]:
    try:
        return [affine.owners_of(row, source) for row in rows]
    except ValueError as error:
        raise InvalidValue(f"{unknown}: {error}") from error


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the decoder's layout of one latent without a dimension of single frames."""
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


def require_initial(initial: Affine, noise: Tensor, first: StepRecord) -> None:
    """Refuse first latents that the recording of the real first step does not confirm.

    Raises:
        InvalidValue: if it does not.
    """
    expected = initial(noise[None])
    if not torch.allclose(expected, first.sample.float().cpu().reshape(expected.shape), rtol=2e-2, atol=2e-2):
        raise InvalidValue("the first latents are made of noise and of something that differs from call to call")


def _affine(target: Any, source: Tensor, unknown: str) -> tuple[Affine, list[int]]:
    try:
        return affine.found(target, source)
    except ValueError as error:
        raise InvalidValue(f"{unknown}: {error}") from error
