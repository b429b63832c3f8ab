"""Using a null text that was learnt under normalized attention guidance in the calls of a stock diffusers pipeline.

The call evaluates the prompt's branch alone. Each evaluation of the denoiser is given the prompt's conditioning and φ'
as two halves of one batch, guided inside attention (`nulltta.models.attention`), and the pipeline gets the prompt's
half back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nulltta.errors import DoesNotFit, InvalidValue
from nulltta.models import load_model
from nulltta.models.attention import (
    Attended,
    AttentionGuidance,
    find_image_tokens,
    guided,
    guided_across,
    randomised,
)
from nulltta.models.frozen import Surrounding
from nulltta.models.nag import guidance_of
from nulltta.models.recording import denoisers, first_tensor, returned_like
from nulltta.models.restoring import overruled
from nulltta.models.shells import masked
from nulltta.models.tree import bound, leaves, replaced, rows_first
from nulltta.null_text.exact import recorded_config
from nulltta.null_text.replacement import Replacement

if TYPE_CHECKING:
    from nulltta.null_text.replacement import Applicable

_OFF = (
    "the null text was learnt under normalized attention guidance, and the call used classifier-free guidance: switch "
    "it off (guidance_scale, or true_cfg_scale)"
)


@contextmanager
def attention_guided(null_text: Applicable, pipeline: Any, *, exact: bool) -> Iterator[None]:
    """Guide the calls of a pipeline inside attention by φ' at each step.

    Raises:
        DoesNotFit: if the null text does not say where it belongs in this pipeline's calls.
        InvalidValue: if a call inside used classifier-free guidance, or an option is not offered.
    """
    config = recorded_config(null_text.about)
    if exact:
        raise InvalidValue("is offered for classifier-free guidance only: replay makes the picture again", "exact")
    where = null_text.about.get("where")
    if where is None or config.guidance == "cfg+nag" or where.get("aliases"):
        raise DoesNotFit(
            "this null text cannot be applied to a stock pipeline: only those learnt under cfg, or under nag without a "
            "network beside the denoiser, can; replay it instead"
        )
    null = None
    if not null_text.prompt and config.nag_null == "empty":  # counts from φ, which the call does not encode
        null = null_text.null or _encoded_null(pipeline, where)
    with ExitStack() as undo:
        for denoiser in denoisers(pipeline).values():
            watch = GuidedReplacement(null_text, where, denoiser, guidance_of(config), null)
            signature = getattr(denoiser, "_orig_mod", denoiser).forward
            undo.enter_context(overruled(denoiser, "_compiled_call_impl", None))
            undo.enter_context(overruled(denoiser, "forward", watch.around(denoiser.forward, signature)))
            begun, stepped = watch.begun(watch.beginning(pipeline)), watch.stepped(pipeline.scheduler.step)
            undo.enter_context(overruled(pipeline, "prepare_latents", begun))
            undo.enter_context(overruled(pipeline.scheduler, "step", stepped))
        yield


def _encoded_null(pipeline: Any, where: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return φ of the empty prompt, without a batch dimension."""
    _, null = load_model(pipeline, **where.get("call", {})).encode([""], [""])
    return {path: rows[0] for path, rows in null.items()}


class GuidedReplacement(Replacement):
    """Follows a pipeline's calls and guides each evaluation of one denoiser by φ'."""

    def __init__(
        self,
        null_text: Applicable,
        where: Mapping[str, Any],
        denoiser: Any,
        guidance: AttentionGuidance,
        null: Mapping[str, Tensor] | None,
    ) -> None:
        super().__init__(null_text, where)
        self.denoiser, self.guidance, self.null = denoiser, guidance, null
        self.with_rows, self.latents = frozenset(where["rows"]), frozenset(where["latents"])
        self.attended: dict[Any, Attended] = {}

    def around(self, forward: Callable[..., Any], signature: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a denoiser's `forward` so that it is guided by φ'."""

        def with_null(*args: Any, **kwargs: Any) -> Any:
            arguments = rows_first(bound(signature, args, kwargs), self.axes)
            there = leaves(arguments, self.with_rows)
            self.look(there[self.clock])
            self.nth += 1
            rows = {path: there[path] for path in self.with_rows if there.get(path) is not None}
            path = next(path for path in self.null_text.paths if path in rows)
            if self.nth > 1 or len(rows[path]) != self.batch * self.repeats.get(path, 1):
                raise InvalidValue(_OFF)

            def evaluated(halves: Mapping[str, tuple[Any, Any]], around: Surrounding) -> Any:
                both = replaced(arguments, _joined(arguments, halves))
                with around():
                    return forward(**rows_first(both, self.axes, back=True))

            learnt = self._learnt(rows)
            halves = {path: (value, learnt.get(path, value)) for path, value in rows.items()}
            found, networks = self._attended(halves, evaluated), [self.denoiser]
            if found.crossed:
                with guided_across(networks, found.image, self.guidance, halves[path][1]):
                    return forward(*args, **kwargs)
            output = evaluated(halves, partial(guided, networks, found.image, self.guidance))
            prediction = first_tensor(output)
            return returned_like(output, prediction[: len(prediction) // 2])

        with_null.__wrapped__ = signature  # type: ignore[attr-defined]
        return with_null

    def _learnt(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return φ' at the present step for each row."""
        cond = {path: rows[path] for path in self.null_text.paths if path in rows}
        null = cond
        if self.null is not None:
            null = {path: [self.null[path]] * len(value) for path, value in cond.items()}
        learnt = self.null_text.rows(self.index, null, cond)
        put = {path: [value.to(cond[path][0]) for value in values] for path, values in learnt.items()}
        return {path: rows if isinstance(cond[path], list) else torch.stack(rows) for path, rows in put.items()}

    def _attended(
        self, halves: Mapping[str, tuple[Any, Any]], evaluated: Callable[[Mapping[str, tuple[Any, Any]], Any], Any]
    ) -> Attended:
        """Return what is guided of each attention module, found once for calls of one shape."""
        key = tuple((path, tuple(_shape(half) for half in pair)) for path, pair in sorted(halves.items()))
        if key in self.attended:
            return self.attended[key]
        generator = torch.Generator().manual_seed(0)
        random = partial(_each, partial(randomised, generator=generator))
        pairs = {path: halves[path] for path in self.null_text.paths if path in halves}
        texts = {path: (random(first), random(second)) for path, (first, second) in pairs.items()}
        longer = {path: max(pair, key=_shape) for path, pair in texts.items()}
        one_text = {**halves, **{path: (text, text) for path, text in longer.items()}}
        moved = {path: (halves[path][0], _each(partial(_noised, generator), halves[path][0])) for path in self.latents}
        (only, *more) = texts.values()
        alone = not more and isinstance(only[0], Tensor) and only[0].shape == only[1].shape
        self.attended[key] = find_image_tokens(
            [self.denoiser],
            self.guidance,
            lambda around: first_tensor(evaluated({**one_text, **moved}, around)),
            lambda around: first_tensor(evaluated({**halves, **texts}, around)),
            torch.cat(only) if alone else None,
        )
        return self.attended[key]


def _joined(arguments: Mapping[str, Any], halves: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return the arguments of both halves; texts of different lengths stay a list, or are padded and masked.

    Raises:
        DoesNotFit: if they have different lengths and the call takes neither.
    """
    joined: dict[str, Any] = {}
    for path, (first, second) in halves.items():
        if isinstance(first, list):
            joined[path] = [*first, *second]
        elif first.shape[1:] == second.shape[1:]:
            joined[path] = torch.cat([first, second])
        elif leaves(arguments).get(f"{path}_mask", False) is None:
            joined[path], joined[f"{path}_mask"] = masked([*first, *second])
        else:
            raise DoesNotFit(
                f"the prompt's embedding ('{path}') has shape {tuple(first.shape[1:])}, the null text "
                f"{tuple(second.shape[1:])}: this denoiser takes texts of one length in one call"
            )
    return joined


def _each(change: Callable[[Tensor], Tensor], rows: Any) -> Any:
    """Change a tensor of rows, or each row of a list of them."""
    return [change(row[None])[0] for row in rows] if isinstance(rows, list) else change(rows)


def _noised(generator: torch.Generator, latents: Tensor) -> Tensor:
    return torch.randn(latents.shape, generator=generator).to(latents)


def _shape(rows: Any) -> Any:
    """Return the shape of a tensor, or those of the rows of a list; None for other values."""
    if isinstance(rows, list):
        return tuple(map(_shape, rows))
    return tuple(rows.shape) if isinstance(rows, Tensor) else None
