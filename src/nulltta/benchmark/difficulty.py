"""How hard each prompt is: how often plain sampling gets all of it right, in draws of noise that are not reported."""

from __future__ import annotations

from collections.abc import Sequence

from nulltta.algorithm.randomness import own_seed
from nulltta.alignment import align
from nulltta.benchmark.measures import all_right
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.evaluation.measures import facts

DRAWS = range(1000, 1008)
"""The draws that prompts are sorted by. Sorting them by a reported draw would put prompts where plain sampling happened
to fail among the hard ones, and every method would seem to help there."""


def plain_rates(model: GuidedModel, prompts: Sequence[str], config: NullTTAConfig, batch_size: int) -> list[float]:
    """Return the share of plain samples of each prompt that show all of it, by the judge of the model's world; NaN
    becomes 0 for prompts outside its grammar."""
    judge, rates, config = facts(model.name), [0.0] * len(prompts), config.without_null_text()
    for draw in DRAWS:
        for start in range(0, len(prompts), batch_size):
            batch = list(prompts[start : start + batch_size])
            seeds = [own_seed(draw, prompt) for prompt in batch]
            result = align(model, batch, "brightness", config=config, method="plain", seed=seeds, progress=False)
            for b, right in enumerate(all_right(judge(result.images, batch)).nan_to_num().tolist()):
                rates[start + b] += right / len(DRAWS)
    return rates


def thirds(rates: Sequence[float]) -> list[list[int]]:
    """Return the numbers of the prompts in three groups of like size, those that plain sampling gets right least
    often first."""
    order, n = sorted(range(len(rates)), key=lambda i: rates[i]), len(rates)
    return [sorted(order[k * n // 3 : (k + 1) * n // 3]) for k in range(3)]
