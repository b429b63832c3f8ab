"""Null-TTA's rivals, each a method (Problem) -> Stream like `null_tta`; those with settings are frozen dataclasses.

`align(..., method="best-of-n")` runs one with its published settings, `align(..., method=BestOfN(samples=4))` with
yours. What a setting in a reward's unit should be for another reward is for the caller to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nulltta.algorithm.problem import Problem
from nulltta.baselines.best_of_n import BestOfN
from nulltta.baselines.dno import DNO
from nulltta.baselines.dps import DPS
from nulltta.baselines.prompt_embedding import prompt_embedding
from nulltta.baselines.reno import ReNO
from nulltta.baselines.shared_null import shared_null
from nulltta.baselines.smc import DAS, FKSteering
from nulltta.contracts import Stream

__all__ = ["BASELINES", "DAS", "DNO", "DPS", "BestOfN", "FKSteering", "ReNO", "prompt_embedding", "shared_null"]

BASELINES: Mapping[str, Callable[[Problem], Stream]] = {
    "best-of-n": BestOfN(),
    "dps": DPS(),
    "das": DAS(),
    "fk": FKSteering(),
    "dno": DNO(),
    "reno": ReNO(),
    "prompt-embedding": prompt_embedding,
    "shared-null": shared_null,
}
