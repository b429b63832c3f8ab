"""Is the reward being hacked? What an aligned run gained and lost, and whether its gain withstands small changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nulltta import rewards
from nulltta.alignment import AnyReward, Result
from nulltta.errors import InvalidValue
from nulltta.evaluation.bootstrap import Gain, paired_gain
from nulltta.evaluation.comparison import compare
from nulltta.evaluation.evidence import Picture, examine, features_of
from nulltta.evaluation.measures import Measure, held_out_measures, vendi_score
from nulltta.evaluation.verdict import MeasureFinding, Survival, Verdict, verdict

FEWEST = 6
"""The fewest units for an interval: with 5 pairs, no outcome has a two-sided sign test below 5% (2/2⁵ = 0.06)."""


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a run.

    Attributes:
        pictures: the number of pairs of pictures.
        unit: what the intervals are over: "prompts", or "seeds" if there is one prompt.
        measures: the target, the components of a sum, and the held-out measures.
        survival: one entry per perturbation; empty where the target could not be evaluated, or did not rise.
        texture: the gain in high frequencies; None where they are not known.
        diversity: the mean Vendi score over prompts of the plain and of the aligned pictures, between 1 and the number
            of pictures per prompt; None if no prompt has several.
        verdict: what follows.
    """

    pictures: int
    unit: str
    measures: Sequence[MeasureFinding]
    survival: Sequence[Survival]
    texture: Gain | None
    diversity: tuple[float, float] | None
    verdict: Verdict

    @property
    def target(self) -> MeasureFinding:
        """The target, which is the first measure."""
        return self.measures[0]

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis in JSON's own types."""
        return asdict(self)


def diagnose(result: Result | Sequence[Result], *, against: Sequence[AnyReward] = ()) -> Diagnosis:
    """Diagnose aligned pictures: which measures rose and fell, how robust the gain is, and whether it was hacked.

    Args:
        result: what `align` returned, or several results with the same reward: several prompts, or several seeds.
        against: rewards that were not optimised, to measure both pictures with. For the embedded model, its second
            scorer and its judge are always among them.

    Raises:
        InvalidValue: if there are too few pictures for an interval, or the results have different rewards.
        LoadError: if a reward of `against` does not load.
        RewardError: if a reward fails.
    """
    results = [result] if isinstance(result, Result) else list(result)
    if not results:
        raise InvalidValue("a diagnosis needs at least one result")
    problem = results[0].problem
    if len({each.problem.reward.name for each in results}) > 1:
        raise InvalidValue("the results have different rewards: diagnose them one by one")
    others = [rewards.load(reward) for reward in against]
    measures: dict[str, Measure] = held_out_measures(problem.model) | {reward.name: reward for reward in others}
    features = features_of(problem.model.name)
    pictures = [
        picture
        for each in results
        for picture in examine(compare(each, measures), each.problem.reward, features)
    ]  # fmt: skip
    return diagnosis_of(pictures, asdict(problem.config))


def diagnosis_of(pictures: Sequence[Picture], settings: Mapping[str, Any]) -> Diagnosis:
    """Draw the diagnosis from the evidence.

    Args:
        pictures: one per prompt and seed. The pictures of a prompt are averaged and the intervals are over prompts; if
            there is only one prompt, they are over its pictures.
        settings: the settings of the run by name, for the advice.

    Raises:
        InvalidValue: if there are too few pictures for an interval.
    """
    prompts = list(dict.fromkeys(picture.prompt for picture in pictures))
    unit, units = ("prompts", len(prompts)) if len(prompts) > 1 else ("seeds", len(pictures))
    if units < FEWEST:
        raise InvalidValue(
            f"{units} {unit[:-1] if units == 1 else unit} {'are' if units > 1 else 'is'} too few for an interval: "
            f"align {FEWEST} or more prompts, or one prompt with {FEWEST} or more seeds"
        )
    target = next(iter(pictures[0].scores))
    roles = {name: score.role for picture in pictures for name, score in picture.scores.items()}
    measures = [
        MeasureFinding(name, role, _gain(pictures, name), joint_fall(_pairs(pictures, target), _pairs(pictures, name)))
        for name, role in roles.items()
    ]
    found = measures[0].gain
    survival = _survival(pictures, target) if found is not None and found.mean > 0 else []
    textures = _by_unit(pictures, [(picture.texture.plain, picture.texture.aligned) for picture in pictures])
    texture = None if np.isnan(textures).any() else _paired(textures)
    said = verdict(measures, survival, settings)
    return Diagnosis(len(pictures), unit, measures, survival, texture, _diversity(pictures), said)


def joint_fall(target: np.ndarray, measure: np.ndarray) -> float:
    """Return the share of pictures whose target rose while a measure fell by more than plain sampling's spread.

    Args:
        target: (N, 2), plain and aligned scores.
        measure: (N, 2); NaN where the measure does not apply, which is left out.
    """
    known = ~np.isnan(measure).any(axis=1)
    if known.sum() < 2:
        return math.nan
    gains, falls = target[known, 1] - target[known, 0], measure[known, 0] - measure[known, 1]
    return float(((gains > 0) & (falls > measure[known, 0].std(ddof=1))).mean())


def surviving_share(before: np.ndarray, after: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the mean gain after a perturbation as a share of that before it, with a 95% bootstrap interval.

    Args:
        before, after: (N,), the gain of each unit; those of one unit are resampled together.
        rng: draws the resamples.
    """
    drawn = rng.integers(len(before), size=(10_000, len(before)))
    below, above = before[drawn].mean(1), after[drawn].mean(1)
    shares = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    low, high = np.nanquantile(shares, [0.025, 0.975])
    return float(after.mean() / before.mean()), float(low), float(high)


def _pairs(pictures: Sequence[Picture], name: str) -> np.ndarray:
    """Return the plain and the aligned score of each picture, (N, 2); NaN where there is none."""
    scores = [picture.scores.get(name) for picture in pictures]
    return np.array([(math.nan, math.nan) if s is None else (s.plain, s.aligned) for s in scores])


def _by_unit(pictures: Sequence[Picture], values: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
    """Average values (N, 2) over the pictures of a prompt, or return them all if there is one prompt."""
    table, prompts = np.asarray(values), [picture.prompt for picture in pictures]
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) == 1:
        return table
    return np.array([table[[prompt == each for prompt in prompts]].mean(0) for each in distinct])


def _gain(pictures: Sequence[Picture], name: str) -> Gain | None:
    """Return the paired gain over the units to which a measure applies; None for fewer than `FEWEST`."""
    known = [p for p in pictures if name in p.scores and not math.isnan(p.scores[name].gain)]
    if not known:
        return None
    units = _by_unit(known, _pairs(known, name))
    return _paired(units) if len(units) >= FEWEST else None


def _paired(units: np.ndarray) -> Gain:
    """Return the paired gain of units (N, 2)."""
    before, after = units.T.tolist()
    return paired_gain(before, after, np.random.default_rng(0))


def _survival(pictures: Sequence[Picture], target: str) -> list[Survival]:
    """Return what is left of the target's gain after each perturbation."""
    before = np.diff(_by_unit(pictures, _pairs(pictures, target)))[:, 0]
    found = []
    for name in pictures[0].target_after:
        scores = [picture.target_after[name] for picture in pictures]
        after = np.diff(_by_unit(pictures, [(s.plain, s.aligned) for s in scores]))[:, 0]
        found.append(Survival(name, *surviving_share(before, after, np.random.default_rng(0))))
    return found


def _diversity(pictures: Sequence[Picture]) -> tuple[float, float] | None:
    """Return the mean Vendi scores over the prompts that have several pictures."""
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(picture.prompt, []).append(picture)
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return None
    plain, aligned = (
        float(np.mean([vendi_score(np.stack([picture.features[way] for picture in group])) for group in several]))
        for way in (0, 1)
    )
    return plain, aligned
