"""The analysis of rows: means, paired gains with their intervals, verdicts and the frontier."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev

import numpy as np

from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.store import ImageRow
from nulltta.evaluation.bootstrap import Gain, paired_gain
from nulltta.evaluation.measures import unpack, vendi_score

VENDI = "vendi"
OURS, PLAIN = "null-tta", "plain"
Values = Mapping[tuple[int, int], float]
"""One value by prompt number and seed."""


@dataclass(frozen=True)
class ArmResult:
    """The rows of one arm."""

    arm: Arm
    rows: Sequence[ImageRow]

    def values(self, measure: str) -> Values:
        """Return the values of a measure, without the images to which it does not apply."""
        found = {(row.prompt, row.seed): row.scores.get(measure) for row in self.rows}
        return {place: value for place, value in found.items() if value is not None}

    @cached_property
    def features(self) -> Mapping[tuple[int, int], np.ndarray]:
        """The features of the images that have them, as vectors of length 1."""
        packed = {(row.prompt, row.seed): row.features for row in self.rows if row.features is not None}
        vectors = {place: unpack(text) for place, text in packed.items()}
        return {place: vector / np.linalg.norm(vector) for place, vector in vectors.items()}

    def diversities(self, places: Collection[tuple[int, int]] | None = None) -> Values:
        """Return the Vendi score of each prompt with images of two or more draws, under draw 0.

        Args:
            places: the prompts and seeds whose images count; None for all. More draws are more diverse, so that two
                arms are to be compared over the same ones.
        """
        by_draw: dict[int, list[np.ndarray]] = defaultdict(list)
        for place, vector in self.features.items():
            if places is None or place in places:
                by_draw[place[0]].append(vector)
        return {(prompt, 0): vendi_score(np.stack(mine)) for prompt, mine in by_draw.items() if len(mine) > 1}

    def of(self, measure: str) -> Values:
        """Return the values of a measure or of the Vendi score."""
        return self.diversities() if measure == VENDI else self.values(measure)

    def mean(self, measure: str) -> float:
        """Return the mean over prompts of their means over seeds; NaN if there is no value."""
        return _mean(by_prompt(self.of(measure)).values())

    @property
    def cost(self) -> float:
        """Denoiser evaluations per image, as counted."""
        return _mean(row.forward + row.backward for row in self.rows)

    @property
    def nats(self) -> float:
        """How far the null texts moved the distribution, in nats per image, summed over the denoising steps."""
        return _mean(row.nats for row in self.rows)

    @property
    def seconds(self) -> float:
        """Seconds per image, of the images that were timed; NaN if none was."""
        return _mean(row.seconds for row in self.rows if row.seconds is not None)


@dataclass(frozen=True)
class Panel:
    """All arms of one target at one budget, with plain sampling among them.

    Attributes:
        target: the reward that is raised.
        budget: its label.
        results: each arm's result by the contender's name.
    """

    target: str
    budget: str
    results: Mapping[str, ArmResult]

    @property
    def plain(self) -> ArmResult:
        """The result of plain sampling."""
        return self.results[PLAIN]

    @property
    def measures(self) -> list[str]:
        """The measures that apply to at least one image, the target first."""
        names = dict.fromkeys([self.target, *(name for row in self.plain.rows for name in row.scores)])
        found = [name for name in names if self.plain.values(name)]
        return [*found, VENDI] if self.plain.diversities() else found

    def gain(self, name: str, measure: str, over: str = PLAIN) -> Gain | None:
        """Compare a contender with another one, prompt by prompt.

        Args:
            name: the contender.
            measure: what is compared.
            over: the contender to compare with.

        Returns:
            The gain, whose `spread` is that of all of plain's scores, so that contenders with fewer images than others
            are measured in the same unit. That of diversities is over the draws that count, as more draws are more
            diverse. None for fewer than two prompts in common.
        """
        plain = self._diversities(self.plain, over, name) if measure == VENDI else self.plain.values(measure)
        unit, gain = by_prompt(plain), compare(*self._both(over, name, measure))
        return None if gain is None or len(unit) < 2 else replace(gain, spread=stdev(unit.values()))

    def level(self, name: str, measure: str, prompts: Collection[int] | None = None) -> float:
        """Return a contender's mean as plain sampling's plus what the contender is above it where both have images, so
        that contenders with fewer images than others can be compared; NaN where there are none.

        Args:
            name: the contender.
            measure: a measure of single images.
            prompts: the numbers of the prompts that count; None for all.
        """
        plain, theirs = (self.results[each].values(measure) for each in (PLAIN, name))
        if prompts is not None:
            plain, theirs = (
                {place: value for place, value in values.items() if place[0] in prompts} for values in (plain, theirs)
            )
        before, after = paired(plain, theirs)
        return _mean(by_prompt(plain).values()) + _mean(b - a for a, b in zip(before, after, strict=True))

    def differences(self, name: str, measure: str, over: str = PLAIN) -> list[float]:
        """Return what a contender is above another one, one number per prompt that both have."""
        before, after = paired(*self._both(over, name, measure))
        return [b - a for a, b in zip(before, after, strict=True)]

    def _both(self, over: str, name: str, measure: str) -> tuple[Values, Values]:
        """Return the values of two contenders; diversities are those over the draws that both have."""
        first, second = self.results[over], self.results[name]
        if measure != VENDI:
            return first.values(measure), second.values(measure)
        return self._diversities(first, over, name), self._diversities(second, over, name)

    def _diversities(self, result: ArmResult, *names: str) -> Values:
        """Return the diversities of a result over the images that plain sampling and some contenders have."""
        common = [each.features.keys() for each in (self.plain, *(self.results[name] for name in names))]
        return result.diversities(frozenset.intersection(*map(frozenset, common)))

    def frontier(self, held_out: str, among: Collection[str]) -> list[str]:
        """Return those of some contenders that no other one of them beats in both the target and the held-out measure,
        by their gains over plain sampling."""

        gains = {
            name: (self.gain(name, self.target), self.gain(name, held_out)) for name in self.results if name in among
        }
        points = {name: (x.mean, y.mean) for name, (x, y) in gains.items() if x is not None and y is not None}
        return [
            name
            for name, (x, y) in points.items()
            if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
        ]


def panels(plan: Plan, rows: Iterable[ImageRow]) -> list[Panel]:
    """Group rows into one panel per target and budget, in the plan's order; those without plain sampling are left
    out."""
    by_arm: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        by_arm[row.arm].append(row)
    results = [ArmResult(arm, by_arm[arm.key]) for arm in plan.arms if by_arm[arm.key]]
    found = []
    for target in plan.targets:
        mine = [result for result in results if result.arm.target == target]
        fixed = {result.arm.name: result for result in mine if not result.arm.budget}
        budgets = dict.fromkeys(result.arm.budget for result in mine if result.arm.budget)
        for budget in budgets or {"": None}:
            at = {result.arm.name: result for result in mine if result.arm.budget == budget}
            if PLAIN in fixed:
                found.append(Panel(target, budget, {**fixed, **at}))
    return found


def compare(before: Values, after: Values) -> Gain | None:
    """Compare two arms over the prompts and seeds that both have.

    The seeds of a prompt are averaged first and prompts are resampled, as a prompt's images are not independent.

    Returns:
        The gain after − before; None for fewer than two prompts.
    """
    first, second = paired(before, after)
    return None if len(first) < 2 else paired_gain(first, second, np.random.default_rng(0))


def paired(before: Values, after: Values) -> tuple[list[float], list[float]]:
    """Return the prompts' means over the draws that both arms have, in the order of the prompts."""
    common = before.keys() & after.keys()
    first, second = (by_prompt({place: values[place] for place in common}) for values in (before, after))
    prompts = sorted(first)
    return [first[p] for p in prompts], [second[p] for p in prompts]


def by_prompt(values: Values) -> dict[int, float]:
    """Return the mean of each prompt over its seeds."""
    found: dict[int, list[float]] = defaultdict(list)
    for (prompt, _), value in values.items():
        found[prompt].append(value)
    return {prompt: fmean(each) for prompt, each in found.items()}


def _mean(values: Iterable[float]) -> float:
    """Return the mean; NaN of no values."""
    found = list(values)
    return fmean(found) if found else math.nan
