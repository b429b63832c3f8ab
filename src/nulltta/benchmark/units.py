"""The scale of a reward: how much plain samples of the tuning prompts vary by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from nulltta.alignment import align
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.rewards import load
from nulltta.scoring import score

SEEDS = (0, 1)


def scales(
    model: GuidedModel, names: Sequence[str], prompts: Sequence[str], config: NullTTAConfig, batch_size: int = 8
) -> dict[str, tuple[float, float]]:
    """Each reward's mean and standard deviation over plain samples, to three digits.

    Raises:
        NullTTAError: a reward's values do not vary.
    """
    rewards = {name: load(name) for name in names}
    values: dict[str, list[float]] = {name: [] for name in names}
    for seed in SEEDS:
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            images = align(model, batch, "brightness", config=config, method="plain", seed=seed).images
            for name, reward in rewards.items():
                values[name] += score(reward, images, batch).tolist()
    found = {name: (_short(fmean(each)), _short(stdev(each))) for name, each in values.items()}
    for name, (_, deviation) in found.items():
        if not deviation > 0:
            raise InvalidValue(f"reward '{name}' is the same for all plain samples: there is nothing to raise")
    return found


def trade_off(parts: Sequence[str], weights: Sequence[float], scale: Mapping[str, tuple[float, float]]) -> list[str]:
    """w·z(first) + (1−w)·z(second) of each weight, standardised by the given means and deviations."""
    first, second = (f"z({name}, {scale[name][0]:g}, {scale[name][1]:g})" for name in parts)
    if any(not 0 <= w <= 1 for w in weights):
        raise InvalidValue(f"the weights of a trade-off lie between 0 and 1, not {list(weights)}")
    return [f"{w:g}*{first} + {1 - w:g}*{second}" for w in weights]


def _short(value: float) -> float:
    return float(f"{value:.3g}")
