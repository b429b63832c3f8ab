"""The methods that Null-TTA is compared with: what each is, what it costs, and which settings are tried in tuning.

An entry of `BASELINES` is all that a method needs: `align` and the command line find it by its name, the benchmark
spends a budget on it by its cost, and the tests that hold for every method run on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nulltta.algorithm.problem import Problem
from nulltta.baselines.best_of_n import BestOfN
from nulltta.baselines.dno import DNO
from nulltta.baselines.dps import DPS
from nulltta.baselines.prompt_embedding import prompt_embedding
from nulltta.baselines.reno import ReNO
from nulltta.baselines.shared_null import shared_null
from nulltta.baselines.smc import DAS, FKSteering
from nulltta.contracts import Stream

MethodSettings: TypeAlias = Mapping[str, Any]
"""Settings by name: fields of the method, or of `NullTTAConfig` for a method that reads its configuration."""


def _once(T: int) -> int:
    """Return T."""
    return T


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method spends per prompt: T·(each·n + once) denoiser evaluations.

    A forward pass of one branch counts 1, a forward and a backward pass count 2, and one that checkpointing repeats
    counts again; T is the number of denoising steps.

    Attributes:
        count: the field of the method that is n, such as "samples"; None if a larger budget buys n runs of the whole
            method, of which the best counts.
        each: evaluations per denoising step for each of the n.
        once: evaluations per denoising step that n does not change.
    """

    count: str | None
    each: int
    once: int = 0


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A method to compare Null-TTA with.

    Attributes:
        method: (Problem) -> Stream with the published settings; a frozen dataclass if it has settings of its own.
        about: what it does, in a few words.
        needs_gradient: whether it can raise only a reward that gives a gradient.
        cost: what it costs; None for a method that takes the inner steps and candidates of its `NullTTAConfig`, as
            Null-TTA does, and so costs what these cost.
        steps: T -> the number of `Step`s that it yields, for progress bars; T if it passes through the schedule once.
        grid: ten settings to try in tuning; () for a method that has none to tune. A setting in the unit of a reward
            is written for a reward whose standard deviation over plain samples is 1.
    """

    method: Callable[[Problem], Stream]
    about: str
    needs_gradient: bool = False
    cost: Cost | None = None
    steps: Callable[[int], int] = _once
    grid: Sequence[MethodSettings] = ()


EMBEDDING_GRID: Sequence[MethodSettings] = (
    *(
        {"reward_weight": 5.0, "kl_weight": 0.002, "learning_rate": rate, "num_particles": K}
        for rate, K in (
            (0.0125, 2), (0.025, 3), (0.025, 2), (0.05, 2), (0.05, 1), (0.1, 2), (0.0125, 3), (0.00625, 2), (0.00625, 3)
        )
    ),
    {"reward_weight": 5.0, "kl_weight": 0.008, "learning_rate": 0.025, "num_particles": 2},
)  # fmt: skip
"""The settings to try for a method that optimises an embedding: all lie around the embedded model's preset."""

BASELINES: Mapping[str, Baseline] = {
    "best-of-n": Baseline(
        method=BestOfN(), about="the best of N plain samples", cost=Cost(count="samples", each=2)
    ),
    "dps": Baseline(
        method=DPS(), about="the reward's gradient at each step; the best of k runs", needs_gradient=True,
        cost=Cost(count=None, each=4),
        grid=[{"scale": scale} for scale in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 1.5, 2.0, 4.0, 5.0)],
    ),
    "das": Baseline(
        method=DAS(), about="SMC with the reward's gradient", needs_gradient=True,
        cost=Cost(count="particles", each=4),
        grid=[{"temperature": alpha} for alpha in (0.03, 0.1, 0.3, 1.0, 0.01, 0.003, 0.015, 0.02, 0.04, 0.06)],
    ),
    "fk": Baseline(
        method=FKSteering(), about="SMC with Feynman-Kac potentials", cost=Cost(count="particles", each=2),
        grid=[
            *({"reward_weight": weight} for weight in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)),
            *({"reward_weight": weight, "potential": "max"} for weight in (1.0, 3.0, 10.0, 30.0)),
        ],
    ),
    "dno": Baseline(
        method=DNO(), about="all of the sampler's noise is optimised", needs_gradient=True,
        cost=Cost(count="iterations", each=6, once=2), steps=lambda _: DNO().iterations + 1,
        grid=[
            *(
                {"learning_rate": rate, "num_inference_steps": T}
                for rate, T in ((0.03, 5), (0.1, 5), (0.03, 10), (0.1, 10), (0.3, 5), (0.3, 10), (0.1, 3), (0.2, 5))
            ),
            *({"learning_rate": 0.2, "num_inference_steps": 5, "regularisation": weight} for weight in (0.1, 1.0)),
        ],
    ),
    "reno": Baseline(
        method=ReNO(), about="the initial noise is optimised", needs_gradient=True,
        cost=Cost(count="iterations", each=6, once=2), steps=lambda _: ReNO().iterations + 1,
        grid=[
            {"reward_weight": 1.0, "learning_rate": rate, "num_inference_steps": T}
            for rate, T in (
                (5.0, 5), (20.0, 5), (5.0, 10), (20.0, 10), (80.0, 5), (80.0, 10), (320.0, 5), (160.0, 5), (80.0, 3),
                (320.0, 3),
            )
        ],
    ),
    "prompt-embedding": Baseline(
        method=prompt_embedding, about="the prompt embedding is optimised in place of the null text",
        grid=EMBEDDING_GRID,
    ),
    "shared-null": Baseline(
        method=shared_null, about="one null text for all steps", steps=lambda T: 2 * T
    ),
}  # fmt: skip
"""The methods by name. Of the ten settings in a grid, six lie over a wide range and four around the best of those."""
