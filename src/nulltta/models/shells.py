"""Recorded calls of the denoiser as shells to fill: with latents, with the time, and with an embedding of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import Embedding
from nulltta.errors import InvalidValue
from nulltta.models.findings import Findings
from nulltta.models.recording import DenoiserCall, StepRecord
from nulltta.models.steps import ObservedStep
from nulltta.models.tree import leaves, replaced, same

BRANCH = "branch"
"""The name, in an embedding, of which branch it conditions: 0 for null, 1 for cond. Only there where it matters."""
LENGTH = ".length"
"""What the name of a tensor ends in that holds the lengths of another, padded one."""


class Shells:
    """The calls in which texts were encoded, one for each set of shapes that a text's tensors can have."""

    def __init__(self, found: Findings) -> None:
        self.found = found
        self._shells: dict[Any, _Shell] = {}
        self._given: frozenset[str] | None = None  # the tensors that the first of these calls was given, by path
        self._context: dict[bool, dict[str, Any]] = {}  # by branch: one row of what is neither text, time nor latents

    def embeddings(self, step: StepRecord) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (c, φ) of a recorded step, and keep its calls as shells.

        Raises:
            InvalidValue: if the denoiser is given an argument for some texts only.
        """
        self._require_same_arguments(step)
        found, batch = self.found, len(step.sample)
        pair: list[dict[str, Tensor]] = []
        for cond in (True, False):
            first = cond != found.null_first  # whether this branch is the first half of the rows, or the first call
            call = step.calls[0] if found.joint or first else step.calls[1]
            call = replace(call, arguments=found.by_latent(call.arguments))
            part = slice(None)
            if found.joint:
                part = slice(0, batch) if first else slice(batch, 2 * batch)
            given = leaves(call.arguments, found.rows)
            there = {path: given[path][:: found.repeats.get(path, 1)] for path in found.rows}
            embedding: dict[str, Tensor] = {}
            for path in found.text:
                embedding |= _padded(path, list(there[path][part]), found)
            if found.branch:
                embedding[BRANCH] = torch.full((batch,), int(cond), device=step.sample.device)
            pair.append(embedding)
            self._shells[_key(embedding, found)] = _Shell(call, there, found)
            known = set(found.latents) | found.moving | set(found.text) | set(found.aliases)
            self._context[cond] = {path: there[path][part][0] for path in found.rows - known}
        return pair[0], pair[1]

    def _require_same_arguments(self, step: StepRecord) -> None:
        """Refuse an argument that some calls only have, such as a mask that is left out where all is seen."""
        given = frozenset(
            path
            for call in step.calls
            for path, value in leaves(call.arguments, self.found.rows).items()
            if isinstance(value, Tensor)
        )
        self._given = self._given or given
        if some := sorted((given - self._given) | (self._given & self.found.rows) - given):
            raise InvalidValue(f"the denoiser is given '{some[0]}' for some texts only, which is not supported")

    def filled(self, x: Tensor, step: ObservedStep, embedding: Mapping[str, Tensor | list[Tensor]]) -> DenoiserCall:
        """Return a call for latents (N, ...) in the model's layout, at a step, under an embedding of N rows.

        Raises:
            InvalidValue: if no text had such shapes, or texts of different lengths do not fit into one call.
        """
        found, count = self.found, len(x)
        shell = self._shell(embedding)
        new: dict[str, Any] = {}
        for path, enter in found.latents.items():
            new[path] = shell.rows(path, enter(x, step.gains[path]).to(shell.like[path]))
        covers = [[len(row) for row in embedding[mask]] for mask in found.masks if isinstance(embedding[mask], list)]
        for path in found.text:
            new |= shell.texts(path, embedding[path], covers)
        for alias, path in found.aliases.items():
            new[alias] = new[path]
        for path, value in step.inputs.items():
            new[path] = shell.repeated(path, value, count) if path in found.rows else value
        arguments = replaced(shell.arguments, new | self._others(embedding, count, shell))
        return DenoiserCall(step.component, found.as_called(arguments), None, shell.wires)

    def _others(self, embedding: Mapping[str, Any], count: int, shell: _Shell) -> dict[str, Any]:
        """The rows that depend on nothing, or on the branch alone."""
        if not self.found.branch:
            return {path: shell.repeated(path, row, count) for path, row in self._context[True].items()}
        branches = [bool(branch) for branch in embedding[BRANCH].tolist()]
        each = {path: [self._context[branch][path] for branch in branches] for path in self._context[True]}
        return {path: shell.rows(path, rows if shell.lists[path] else torch.stack(rows)) for path, rows in each.items()}

    def _shell(self, embedding: Mapping[str, Any]) -> _Shell:
        ragged = [path for path in self.found.text if isinstance(embedding[path], list)]
        if ragged:
            return next(iter(self._shells.values()))
        key = _key(embedding, self.found)
        try:
            return self._shells[key]
        except KeyError:
            shapes = dict(zip(self.found.text, key, strict=True))
            raise InvalidValue(f"an embedding has shapes {shapes}, which no prompt of this model had") from None


class _Shell:
    """A recorded denoiser call with places to fill: what does not depend on rows stays as it was recorded."""

    def __init__(self, call: DenoiserCall, there: Mapping[str, Any], found: Findings) -> None:
        self.lists = {path: isinstance(there[path], list) for path in found.rows}
        self.repeats = found.repeats
        self.like = {
            path: torch.empty(0, dtype=row.dtype, device=row.device)
            for path in found.rows
            if isinstance(row := there[path][0], Tensor)
        }
        places = dict.fromkeys((*found.rows, *found.moving))
        self.arguments = replaced(call.arguments, _halves(call, found) | places)
        self.wires = call.wires
        self.unmasked = {path for path, value in leaves(call.arguments).items() if value is None}

    def texts(self, path: str, rows: Tensor | list[Tensor], covers: Sequence[list[int]]) -> dict[str, Any]:
        """The arguments for texts; those of different lengths stay a list, or are padded and masked.

        Args:
            path: of the argument.
            rows: of it, a list where their lengths differ.
            covers: the lengths of the masks that the call is given anyway.

        Raises:
            InvalidValue: if they have different lengths and the call takes neither.
        """
        like = self.like[path]
        if isinstance(rows, Tensor):
            return {path: self.rows(path, rows.to(like))}
        if self.lists[path]:
            return {path: self.rows(path, [row.to(like) for row in rows])}
        if [len(row) for row in rows] in covers:
            return {path: self.rows(path, masked([row.to(like) for row in rows])[0])}
        mask = f"{path}_mask"  # as diffusers' transformers call it
        if mask not in self.unmasked:
            raise InvalidValue(
                "the prompt and the null text have different lengths, and this denoiser takes texts of one length in "
                "one call: it cannot be guided inside attention (guidance)"
            )
        tokens, seen = masked([row.to(like) for row in rows])
        return {path: self.rows(path, tokens), mask: self.rows(path, seen)}

    def rows(self, path: str, value: Any) -> Any:
        """The rows of an argument, each as often as the pipeline repeats it."""
        times = self.repeats.get(path, 1)
        if self.lists[path]:
            return [row for row in value for _ in range(times)]
        return value.repeat_interleave(times, 0) if times > 1 else value

    def repeated(self, path: str, row: Any, count: int) -> Any:
        """One row for every latent."""
        if self.lists[path] or not isinstance(row, Tensor):
            return [row] * (count * self.repeats.get(path, 1))
        return self.rows(path, row[None].expand(count, *row.shape).contiguous())


def _key(embedding: Embedding, found: Findings) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(embedding[path].shape[1:]) for path in found.text)


def _halves(call: DenoiserCall, found: Findings) -> dict[str, Tensor]:
    """The first of two equal rows of what has one row per branch, however many prompts there are."""
    if not found.joint:
        return {}
    there = {path: v for path, v in leaves(call.arguments).items() if isinstance(v, Tensor) and v.dim() > 2}
    return {path: v[:1] for path, v in there.items() if path not in found.rows and len(v) == 2 and same(v[0], v[1])}


def lengths_of(found: Findings, embedding: Embedding) -> tuple[list[str], Tensor]:
    """Return the names of an embedding's padded tensors, and (N, number of names) their lengths."""
    names = [name for name in found.text if name + LENGTH in embedding]
    return names, torch.stack([embedding[name + LENGTH] for name in names], 1)


def masked(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return texts (tokens, width) of different lengths padded with zeros, and which tokens are theirs."""
    tokens = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
    return tokens, torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]


def cut(tokens: Tensor, lengths: Sequence[int]) -> Tensor | list[Tensor]:
    """Return padded texts (N, tokens, width) at their lengths: one tensor if these are equal, else a list."""
    if len(set(lengths)) == 1:
        return tokens[:, : lengths[0]]
    return [row[:length] for row, length in zip(tokens, lengths, strict=True)]


def stacked(rows: Sequence[Embedding]) -> dict[str, Tensor]:
    """Return embeddings of one text each as one of all, padded with zeros."""
    joined: dict[str, Tensor] = {}
    for name in rows[0]:
        tensors = [row[name][0] for row in rows]
        padded = len({tensor.shape for tensor in tensors}) > 1
        joined[name] = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True) if padded else torch.stack(tensors)
    return joined


def require_one_shape(rows: Sequence[Embedding]) -> None:
    """Refuse prompts whose embeddings a model cannot take in one batch.

    Raises:
        InvalidValue: if their shapes differ.
    """
    for name in rows[0]:
        if len(shapes := {tuple(row[name].shape[1:]) for row in rows}) > 1:
            raise InvalidValue(
                f"the prompts' embeddings have different shapes ('{name}': {sorted(shapes)}): align these prompts one "
                "at a time"
            )


def _padded(path: str, rows: Sequence[Tensor], found: Findings) -> dict[str, Tensor]:
    """One of an embedding's tensors, and beside it the lengths where texts have different ones."""
    cast = [row.long() if path in found.masks else row.float() if row.is_floating_point() else row for row in rows]
    if not found.alone or cast[0].dim() == 0:
        return {path: torch.stack(cast)}
    return {path: torch.stack(cast), path + LENGTH: torch.tensor([len(row) for row in cast]).to(cast[0].device)}
