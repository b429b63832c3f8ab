"""A call's arguments as leaves by path: {"added_cond_kwargs.text_embeds": tensor, "x.0": tensor}.

Containers are dictionaries, lists and tuples; everything else is a leaf. A path names a leaf in the same way in every
call of one denoiser, which is what lets two calls be compared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def bound(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; those left at their defaults stay out."""
    found = inspect.signature(function).bind(*args, **kwargs)
    named: dict[str, Any] = {}
    for name, value in found.arguments.items():
        kind = found.signature.parameters[name].kind
        named.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return named


def leaves(value: Any, stop: frozenset[str] = frozenset(), prefix: str = "") -> dict[str, Any]:
    """The leaves of nested containers by path; a container whose path is in `stop` is a leaf."""
    return dict(_walk(value, stop, prefix))


def replaced(value: Any, new: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy of nested containers with `new` in place of what stands at those paths; other leaves are shared."""
    if prefix and prefix in new:
        return new[prefix]
    items = _items(value)
    if items is None:
        return value
    changed = {key: replaced(inner, new, _join(prefix, key)) for key, inner in items}
    return changed if isinstance(value, dict) else type(value)(changed.values())


def shape(value: Any) -> Any:
    """The shape of a tensor; the type of any other value."""
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


def equal_in_groups(rows: Any, times: int) -> bool:
    """Whether each row is repeated so many times, one after another."""
    return all(same(rows[i], rows[i - i % times]) for i in range(len(rows)))


def rows(one: Any, two: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    """The paths of what has twice as many rows in the second of two calls, and the dimension that holds the rows:
    tensors with one dimension of twice the size, and lists of twice the length.

    Raises:
        ValueError: with the path of what differs in structure otherwise.
    """
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        grown = [i for i, (a, b) in enumerate(zip(one.shape, two.shape, strict=False)) if a != b]
        if one.dim() == two.dim() and len(grown) == 1 and two.shape[grown[0]] == 2 * one.shape[grown[0]]:
            yield prefix, grown[0]
        elif one.shape != two.shape:
            raise ValueError(prefix)
        return
    first, second = _items(one), _items(two)
    if first is None or second is None:
        if type(one) is not type(two):
            raise ValueError(prefix)
        return
    if isinstance(one, list) and len(two) == 2 * len(one) and one:
        yield prefix, 0
        return
    if [key for key, _ in first] != [key for key, _ in second]:
        raise ValueError(prefix)
    for (key, a), (_, b) in zip(first, second, strict=True):
        yield from rows(a, b, _join(prefix, key))


def rows_first(value: Any, axes: Mapping[str, int], back: bool = False) -> Any:
    """A copy of nested containers in which the tensors at some paths have their rows in the first dimension.

    Args:
        value: the containers.
        axes: by path, the dimension that holds a tensor's rows.
        back: do the reverse.
    """
    if not axes:
        return value
    there = leaves(value)
    moved = {path: (0, axis) if back else (axis, 0) for path, axis in axes.items() if isinstance(there[path], Tensor)}
    return replaced(value, {path: there[path].movedim(*dims) for path, dims in moved.items()})


def grouped(value: Any, frames: Mapping[str, int], back: bool = False) -> Any:
    """A copy of nested containers in which one row of the tensors at some paths holds all frames of a latent.

    Args:
        value: the containers.
        frames: by path, how many rows of a tensor belong to one latent.
        back: do the reverse.
    """
    if not frames:
        return value
    there = leaves(value)
    new = {path: there[path] for path in frames}
    shaped = {path: rows.flatten(0, 1) if back else rows.unflatten(0, (-1, frames[path])) for path, rows in new.items()}
    return replaced(value, shaped)


def _walk(value: Any, stop: frozenset[str], prefix: str) -> Iterator[tuple[str, Any]]:
    items = None if prefix in stop else _items(value)
    if items is None:
        yield prefix, value
        return
    for key, inner in items:
        yield from _walk(inner, stop, _join(prefix, key))


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if type(value) in (list, tuple) else None


def _join(prefix: str, key: Any) -> str:
    return f"{prefix}.{key}" if prefix else str(key)
