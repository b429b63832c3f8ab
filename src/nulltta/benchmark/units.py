"""The scale of a reward: how much it varies over plain samples of the tuning prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from nulltta.algorithm.randomness import own_seed
from nulltta.alignment import align
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.rewards import load
from nulltta.scoring import score

SEEDS = (0, 1)
BATCH_SIZE = 8


def scales(
    model: GuidedModel, names: Sequence[str], prompts: Sequence[str], config: NullTTAConfig
) -> dict[str, tuple[float, float]]:
    """Measure the mean and the standard deviation of each reward over plain samples, to three digits.

    Raises:
        InvalidValue: if a reward has the same value for all samples.
    """
    rewards, config = {name: load(name) for name in names}, config.without_null_text()
    values: dict[str, list[float]] = {name: [] for name in names}
    for seed in SEEDS:
        for start in range(0, len(prompts), BATCH_SIZE):
            batch = prompts[start : start + BATCH_SIZE]
            seeds = [own_seed(seed, prompt) for prompt in batch]
            images = align(model, batch, "brightness", config=config, method="plain", seed=seeds, progress=False).images
            for name, reward in rewards.items():
                values[name] += score(reward, images, batch).tolist()
    found = {name: (_three_digits(fmean(each)), _three_digits(stdev(each))) for name, each in values.items()}
    for name, (_, deviation) in found.items():
        if not deviation > 0:
            raise InvalidValue(f"reward '{name}' is the same for all plain samples: there is nothing to raise")
    return found


def trade_off(parts: Sequence[str], weights: Sequence[float], scale: Mapping[str, tuple[float, float]]) -> list[str]:
    """Write the target w·z(first) + (1−w)·z(second) for each weight w, standardised by the given means and
    deviations."""
    first, second = (f"z({name}, {scale[name][0]:g}, {scale[name][1]:g})" for name in parts)
    return [f"{w:g}*{first} + {1 - w:g}*{second}" for w in weights]


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")
