"""Which of the denoiser's arguments hold the text, and where the rows of the two branches stand in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models.recording import BESIDE, StepRecord
from nulltta.models.tree import equal_in_groups, leaves, same, shape


@dataclass(frozen=True, slots=True)
class Branches:
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


def repeats_of(start: StepRecord, paths: frozenset[str], joint: bool) -> dict[str, int]:
    """Return how often a row of each argument is repeated for one latent, where it is: once per frame, for instance.

    Raises:
        InvalidValue: if the rows of one latent differ, or one branch has none.
    """
    expected, found = (2 if joint else 1) * len(start.sample), {}
    for path in paths:
        for value in (leaves(call.arguments, paths).get(path) for call in start.calls):
            if value is None:
                raise InvalidValue(f"the denoiser is given '{path}' in one branch only, which is not supported")
            times = len(value) // expected
            if times < 2:
                continue
            if not equal_in_groups(value, times):
                raise InvalidValue(f"the denoiser's argument '{path}' has {times} different rows of one latent")
            found[path] = times
    return found


def text_paths(start: StepRecord, other: StepRecord, branches: Branches, known: set[str]) -> tuple[str, ...]:
    """Return the arguments with rows that change with the prompts; others, such as a length, stay as recorded."""
    found: set[str] = set()
    for one, two in zip(start.calls, other.calls, strict=True):
        a, b = leaves(one.arguments, branches.rows), leaves(two.arguments, branches.rows)
        found.update(path for path in branches.rows - known if path in a and not same(a[path], b.get(path)))
    return tuple(path for path in leaves(start.calls[0].arguments, branches.rows) if path in found)


def require_null(start: StepRecord, other: StepRecord, text: Sequence[str], branches: Branches) -> None:
    """Refuse a null branch that the negative prompt does not reach.

    Raises:
        InvalidValue: if it is the same under two negative prompts.
    """
    for path in text:
        a, b = (branches.of(step, path)[0] for step in (start, other))
        if not all(same(x, y) for x, y in zip(a, b, strict=True)):
            return
    raise InvalidValue("the negative prompt changes nothing in the denoiser's null branch: there is none to optimise")


def aliases_of(steps: Sequence[StepRecord], text: Sequence[str], in_rows: frozenset[str]) -> dict[str, str]:
    """Return the denoiser's path by each path of the network beside it that holds the same text in every call.

    Raises:
        InvalidValue: if that network reads another text.
    """
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


def row_shapes(step: StepRecord, path: str, in_rows: frozenset[str]) -> list[Any]:
    """Return the shapes of an argument's rows."""
    there = (leaves(call.arguments, in_rows).get(path, []) for call in step.calls)
    return [shape(row) for value in there for row in value]


def is_mask(start: StepRecord, other: StepRecord, path: str, in_rows: frozenset[str]) -> bool:
    """Return whether an argument's rows hold only zeros and ones."""
    calls = [leaves(call.arguments, in_rows) for step in (start, other) for call in step.calls]
    values = [row for call in calls for row in call.get(path, []) if isinstance(row, Tensor)]
    return bool(values) and all(v.dim() <= 1 and bool(((v == 0) | (v == 1)).all()) for v in values)
