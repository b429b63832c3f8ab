"""Whether a contender hacks the target, by the same diagnosis that a run is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nulltta.benchmark.analysis import Panel
from nulltta.benchmark.measures import HIGH_FREQUENCY, NEAREST_RENDER
from nulltta.benchmark.store import ImageRow
from nulltta.evaluation.comparison import Role, Score
from nulltta.evaluation.diagnosis import FEWEST, diagnosis_of
from nulltta.evaluation.evidence import Picture
from nulltta.evaluation.measures import unpack
from nulltta.evaluation.verdict import Verdict
from nulltta.rewards.expression import names, parse


def verdicts(panel: Panel, contenders: Sequence[str]) -> dict[str, Verdict]:
    """Return the verdict on each contender; none with fewer prompts than an interval takes.

    The rows hold no pictures, so that what withstands small changes is not part of it.
    """
    found = {}
    for name in contenders:
        pictures = _pictures(panel, name)
        if len({picture.prompt for picture in pictures}) >= FEWEST:
            found[name] = diagnosis_of(pictures, {}).verdict
    return found


def _pictures(panel: Panel, name: str) -> list[Picture]:
    """Pair a contender's images with plain sampling's of the same prompts and seeds."""
    plain = {(row.prompt, row.seed): row for row in panel.plain.rows}
    parts = {str(part) for part in names(parse(panel.target))}

    def role(measure: str) -> Role:
        return "target" if measure == panel.target else "component" if measure in parts else "held out"

    found = []
    for row in panel.results[name].rows:
        if (before := plain.get((row.prompt, row.seed))) is not None:
            measures = [name for name in (panel.target, *row.scores) if name not in (HIGH_FREQUENCY, NEAREST_RENDER)]
            scores = {measure: Score(*_pair(before, row, measure), role(measure)) for measure in measures}
            texture = Score(*_pair(before, row, HIGH_FREQUENCY))
            found.append(Picture(str(row.prompt), scores, {}, texture, (_features(before), _features(row))))
    return found


def _pair(before: ImageRow, after: ImageRow, measure: str) -> tuple[float, float]:
    """Return the two scores, NaN where the measure does not apply."""
    return _known(before.scores, measure), _known(after.scores, measure)


def _known(scores: Mapping[str, float | None], measure: str) -> float:
    value = scores.get(measure)
    return math.nan if value is None else value


def _features(row: ImageRow) -> np.ndarray:
    """Return the features as a unit vector; the same one for all images where there are none."""
    vector = np.ones(1) if row.features is None else unpack(row.features)
    return np.asarray(vector / np.linalg.norm(vector))
