"""Putting φ' in the place of the null branch's embedding in the calls of a stock diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from nulltta.algorithm import schedules
from nulltta.errors import DoesNotFit
from nulltta.models.recording import BESIDE
from nulltta.models.tree import bound, leaves, replaced, rows_first
from nulltta.null_text.exact import BatchLayout, BatchPosition

if TYPE_CHECKING:
    from nulltta.null_text.fitted import FittedNullText
    from nulltta.null_text.value import NullText

    Applicable: TypeAlias = NullText | FittedNullText


class Replacement:
    """Follows a pipeline's calls and puts φ' in the place of the null branch's embedding."""

    def __init__(self, null_text: Applicable, where: Mapping[str, Any]) -> None:
        self.null_text = null_text
        self.prompt: dict[str, Any] = {}  # the prompt's embedding in the present step's call, where it has its own call
        self.axes: Mapping[str, int] = where.get("axes", {})
        self.repeats: Mapping[str, int] = where.get("repeats", {})
        self.aliases: Mapping[str, str] = where.get("aliases", {})
        self.joint, self.null_first = bool(where["joint"]), bool(where["null_first"])
        self.clock, self.times = str(where["time"]["path"]), list(where["time"]["values"])
        self.calls = self.replaced = 0
        self.batch = 0  # images of the present pipeline call
        self.nth = 0  # denoiser calls since the last step of the scheduler
        self.index = 0  # the nearest step that was learnt

    def begun(self, prepare_latents: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `prepare_latents`, with which a call of the pipeline begins, to learn its number of images."""

        def prepared(*args: Any, **kwargs: Any) -> Any:
            latents = prepare_latents(*args, **kwargs)
            first = latents if isinstance(latents, Tensor) else latents[0]
            self.batch, self.nth = len(first), 0
            return latents

        return prepared

    @staticmethod
    def beginning(pipeline: Any) -> Callable[..., Any]:
        """Return the pipeline's `prepare_latents`.

        Raises:
            DoesNotFit: if it has none.
        """
        found: Callable[..., Any] | None = getattr(pipeline, "prepare_latents", None)
        if found is None:
            raise DoesNotFit(
                f"a null text cannot be applied to {type(pipeline).__name__}: without a prepare_latents its calls do "
                "not show how many images they make; replay it instead"
            )
        return found

    def stepped(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `scheduler.step`, after which the branches are evaluated anew."""

        def taken(*args: Any, **kwargs: Any) -> Any:
            self.nth = 0
            return step(*args, **kwargs)

        taken.__wrapped__ = step  # type: ignore[attr-defined]  # pipelines look at its parameters
        return taken

    def around(self, forward: Callable[..., Any], signature: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a denoiser's `forward` so that the null branch gets φ'."""

        def with_null(*args: Any, **kwargs: Any) -> Any:
            arguments = rows_first(bound(signature, args, kwargs), self.axes)
            there = leaves(arguments)
            self.calls += 1
            self.look(there[self.clock])
            self.nth += 1
            if self._is_null(arguments):
                self.replaced += 1
                arguments = self._put(arguments, {path: path for path in self.null_text.paths})
            else:
                self.prompt = there
            return forward(**rows_first(arguments, self.axes, back=True))

        with_null.__wrapped__ = signature  # type: ignore[attr-defined]
        return with_null

    def beside(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the `forward` of a network beside the denoiser, which is given the same text and the same time."""

        def with_null(*args: Any, **kwargs: Any) -> Any:
            arguments = bound(forward, args, kwargs)
            self.look(leaves(arguments)[self.clock])
            own = {path: alias.removeprefix(f"{BESIDE}.") for alias, path in self.aliases.items()}
            times = {path: self.repeats.get(alias, 1) for alias, path in self.aliases.items()}
            guided = all(len(_get(arguments, own[path])) == 2 * self.batch * times[path] for path in own)
            return forward(**(self._put(arguments, own) if guided else arguments))

        with_null.__wrapped__ = forward  # type: ignore[attr-defined]
        return with_null

    def look(self, time: Any) -> None:
        """Find the step that was learnt nearest to a time."""
        now = float(torch.as_tensor(time).max())
        self.index = schedules.nearest(self.times, now)

    def position(self, layout: BatchLayout, row: int) -> BatchPosition:
        """Return where the run evaluated what the pipeline's present call has in a row."""
        first = row == 0 if self.joint else self.nth == 1
        return layout.null(self.index) if first == self.null_first else layout.cond(self.index)

    def _is_null(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether the present call evaluates the null branch, in some of its rows or in all."""
        if not self.joint:
            return self.nth == (1 if self.null_first else 2)
        given = {path: _get(arguments, path) for path in self.null_text.paths}
        path = next(path for path, value in given.items() if value is not _ABSENT)
        return len(given[path]) == 2 * self.batch * self.repeats.get(path, 1)

    def _put(self, arguments: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
        """Return a call with φ' in its null branch; places: by the name of each of its tensors, where it stands."""
        # The run's own entries, such as a length, are absent from the call; None stands where the pipeline gives a mask
        # for texts of different lengths only.
        there = {path: _get(arguments, place) for path, place in places.items()}
        there = {path: rows for path, rows in there.items() if rows is not _ABSENT and rows is not None}
        null = {path: rows[self._part(len(rows))] for path, rows in there.items()}
        cond = {path: self._cond_rows(rows, path) for path, rows in there.items()}
        learnt = self.null_text.rows(self.index, null, cond)
        new = {places[path]: self._with_rows(there[path], rows, path) for path, rows in learnt.items()}
        put: dict[str, Any] = replaced(arguments, new)
        return put

    def _part(self, count: int) -> slice:
        """Return which of `count` rows are the null branch's."""
        if not self.joint:
            return slice(None)
        return slice(0, count // 2) if self.null_first else slice(count // 2, None)

    def _cond_rows(self, there: Any, path: str) -> Any:
        """Return the prompt's rows: the other half of a joint call, else those of the call before."""
        if not self.joint:
            return self.prompt.get(path)
        half = len(there) // 2
        return there[half:] if self.null_first else there[:half]

    def _with_rows(self, there: Any, null: Sequence[Tensor], path: str) -> Any:
        """Return what stands in a call with the null branch's rows replaced."""
        rows = list(there)
        put = [value.to(rows[0]) for value in null]
        if self.joint and isinstance(there, Tensor) and put[0].shape != rows[0].shape:
            raise DoesNotFit(
                f"the call's null embedding ('{path}') has shape {tuple(rows[0].shape)}, the null text "
                f"{tuple(put[0].shape)}: leave max_sequence_length at its default"
            )
        rows[self._part(len(rows))] = put
        return rows if isinstance(there, list) else torch.stack(rows)


_ABSENT = object()


def _get(value: Any, path: str) -> Any:
    """Return the value at a path, or `_ABSENT`."""
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return _ABSENT
        value = value[key]
    return value
