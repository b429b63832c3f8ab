"""How much a fitted null text gains on prompts that it was not fitted on: pictures paired by prompt and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nulltta.algorithm.views import decoded
from nulltta.evaluation.bootstrap import Gain, paired_gain
from nulltta.evaluation.measures import Measure
from nulltta.fit.trajectories import TrajectorySampler
from nulltta.fit.workers import ALONE, Workers
from nulltta.null_text.fitted import FittedNullText

FIRST_SEED = 2_000_000
"""The seed of the first validation prompt, far from those of the training's trajectories and of a user's runs."""


@dataclass(frozen=True)
class Validation:
    """Validation prompts, each with its own noise, and what is measured of their pictures.

    Attributes:
        sampler: samples the pictures.
        prompts: the prompts.
        measures: the target first, then the guards and the measures held out.
        rows: the pictures that are measured at once.
        workers: the processes among which the prompts are shared.
    """

    sampler: TrajectorySampler
    prompts: Sequence[str]
    measures: Mapping[str, Measure]
    rows: int
    workers: Workers = ALONE

    def scores(self, null_text: FittedNullText | None = None) -> dict[str, list[float]]:
        """Return every measure of the pictures under a null text, or of plain sampling's."""

        def measured(mine: Tensor) -> list[Mapping[str, list[float]]]:
            numbers = mine.tolist()
            starts = range(0, len(numbers), self.rows)
            return [self._measured(numbers[start : start + self.rows], null_text) for start in starts]

        parts = [part for theirs in self.workers.map(measured, len(self.prompts)) for part in theirs]
        return {name: [value for part in parts for value in part[name]] for name in self.measures}

    @torch.no_grad()
    def _measured(self, numbers: Sequence[int], null_text: FittedNullText | None) -> dict[str, list[float]]:
        """Return every measure of the pictures of the prompts with some numbers."""
        prompts = [self.prompts[number] for number in numbers]
        x0 = self.sampler(prompts, [FIRST_SEED + number for number in numbers], null_text)[:, -1]
        images = decoded(self.sampler.model, self.sampler.memory, x0)
        return {name: measure(images, prompts).tolist() for name, measure in self.measures.items()}


def gains(plain: Mapping[str, Sequence[float]], fitted: Mapping[str, Sequence[float]]) -> dict[str, Gain]:
    """Return the gain of each measure over the prompts to which it applies, unless there are fewer than two."""
    found = {}
    for name in plain:
        pairs = [pair for pair in zip(plain[name], fitted[name], strict=True) if np.isfinite(pair).all()]
        if len(pairs) >= 2:
            before, after = zip(*pairs, strict=True)
            found[name] = paired_gain(before, after, np.random.default_rng(0))
    return found
