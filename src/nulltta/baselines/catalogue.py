"""The methods that Null-TTA is compared with: what each is, what it costs, and which settings are tried in tuning.

An entry of `BASELINES` is all that a method needs: `align` and the command line find it by its name, the benchmark
spends a budget on it by its cost, and the tests that hold for every method run on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nulltta.algorithm.problem import Problem
from nulltta.baselines.best_of_n import BestOfN
from nulltta.baselines.date import DATE
from nulltta.baselines.dno import DNO
from nulltta.baselines.dps import DPS
from nulltta.baselines.lidar import LiDAR
from nulltta.baselines.noise_tilt import NoiseTilt
from nulltta.baselines.prompt_embedding import prompt_embedding
from nulltta.baselines.reno import ReNO
from nulltta.baselines.shared_null import shared_null
from nulltta.baselines.smc import DAS, FKSteering
from nulltta.contracts import Stream

MethodSettings: TypeAlias = Mapping[str, Any]
"""Settings by name: fields of the method, or of `NullTTAConfig` for a method that reads its configuration."""


Evaluations: TypeAlias = int | Callable[[Any, int], int]
"""Evaluations per denoising step, or (method, T) -> all of them."""


def _once(T: int) -> int:
    """Return T."""
    return T


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method spends per prompt: each·n + once denoiser evaluations.

    A forward pass of one branch counts 1, a forward and a backward pass count 2, and one that checkpointing repeats
    counts again. The numbers are those of classifier-free guidance, which evaluates two branches.

    Attributes:
        count: the field of the method that is n, such as "samples"; None if a larger budget buys n runs of the whole
            method, of which the best counts.
        each: evaluations for each of the n: a number of them per denoising step, or a function of the method and of T,
            the number of denoising steps, that returns all of them.
        once: likewise those that n does not change.
    """

    count: str | None
    each: Evaluations
    once: Evaluations = 0

    def of(self, method: Any, T: int, branches: int = 2) -> tuple[int, int]:
        """Return the evaluations of a method of T denoising steps, for each of the n, and once.

        Args:
            method: the method.
            T: the number of denoising steps.
            branches: of a guided prediction; 1 for none but the prompt's.
        """
        each, once = (part(method, T) if callable(part) else part * T for part in (self.each, self.once))
        return each * branches // 2, once * branches // 2


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A method to compare Null-TTA with.

    Attributes:
        method: (Problem) -> Stream with the published settings; a frozen dataclass if it has settings of its own.
        about: what it does, in a few words.
        needs_gradient: whether it can raise only a reward that gives a gradient.
        cost: what it costs; None for a method that takes the inner steps and candidates of its `NullTTAConfig`, as
            Null-TTA does, and so costs what these cost.
        published: settings of `NullTTAConfig` with which it was published and that differ from Null-TTA's, such as η.
        steps: T -> the number of `Step`s that it yields, for progress bars; T if it passes through the schedule once.
        grid: ten settings to try in tuning; () for a method that has none to tune. A setting in the unit of a reward
            is written for a reward whose standard deviation over plain samples is 1.
        few_steps: likewise `FEW_STEP_TRIES` settings for a model that was distilled to few steps without guidance.
    """

    method: Callable[[Problem], Stream]
    about: str
    needs_gradient: bool = False
    cost: Cost | None = None
    published: MethodSettings = field(default_factory=dict)
    steps: Callable[[int], int] = _once
    grid: Sequence[MethodSettings] = ()
    few_steps: Sequence[MethodSettings] = ()


def _tries(names: Sequence[str], *rows: Sequence[Any], **same: Any) -> list[dict[str, Any]]:
    """Make settings of the same names from rows of values, and of further ones that are the same in all."""
    return [same | dict(zip(names, row, strict=True)) for row in rows]


NULL_TTA_GRID: Sequence[MethodSettings] = _tries(
    ("kl_weight", "learning_rate", "num_particles", "num_inference_steps", "noise_tilt", "runs"),
    (0.032, 0.05, 2, 25, 0.3, 1), (0.008, 0.025, 1, 8, 0.5, 4), (0.008, 0.025, 1, 10, 0.3, 3),
    (0.008, 0.025, 1, 10, 0.7, 3), (0.008, 0.025, 1, 16, 0.3, 2), (0.008, 0.025, 1, 16, 0.5, 2),
    (0.008, 0.025, 1, 16, 0.5, 4), (0.008, 0.025, 1, 25, 0.3, 2), (0.008, 0.025, 1, 25, 0.5, 2),
    (0.008, 0.025, 1, 25, 0.5, 4), reward_weight=5.0, eta=1.0,
)  # fmt: skip
"""The settings to try for Null-TTA, around the embedded model's preset; the budget is divided among the runs."""
PROMPT_GRID: Sequence[MethodSettings] = _tries(
    ("reward_weight", "kl_weight", "learning_rate", "num_particles", "num_inference_steps", "eta"),
    (5.0, 0.002, 0.00625, 2, 25, 1.0), (5.0, 0.002, 0.0032, 2, 25, 1.0), (5.0, 0.002, 0.0016, 2, 25, 1.0),
    (5.0, 0.008, 0.0032, 2, 25, 1.0), (5.0, 0.002, 0.0125, 2, 25, 1.0), (5.0, 0.002, 0.0032, 1, 25, 1.0),
    (5.0, 0.002, 0.0032, 2, 10, 1.0), (5.0, 0.002, 0.00625, 2, 10, 1.0), (5.0, 0.002, 0.0016, 1, 10, 1.0),
    (5.0, 0.002, 0.0032, 1, 10, 0.0),
)  # fmt: skip
"""The same for the prompt's embedding, whose gradient is several times larger: the steps are shorter."""
FEW_STEP_TRIES = 5
NULL_TTA_FEW_STEPS: Sequence[MethodSettings] = _tries(
    ("nag_alpha", "num_particles", "num_inference_steps", "noise_tilt", "runs"),
    (0.25, 3, 4, 0.3, 1), (0.25, 8, 2, 0.3, 1), (0.25, 8, 2, 0.3, 2), (0.25, 2, 8, 0.7, 2), (0.5, 4, 4, 0.7, 2),
    reward_weight=5.0, learning_rate=0.025,
)  # fmt: skip
"""The settings to try for Null-TTA under normalized attention guidance, around the preset of the distilled model."""
TILT_FEW_STEPS: Sequence[MethodSettings] = _tries(
    ("strength", "num_inference_steps", "eta"),
    (0.3, 4, "auto"), (0.7, 4, "auto"), (0.3, 8, "auto"), (0.5, 8, "auto"), (0.7, 8, "auto"),
)  # fmt: skip
"""The same for both methods that tilt noise without a null text."""

BASELINES: Mapping[str, Baseline] = {
    "best-of-n": Baseline(
        method=BestOfN(), about="the best of N plain samples", cost=Cost(count="samples", each=2),
        grid=_tries(
            ("num_inference_steps", "eta"),
            (5, 1.0), (5, 0.0), (8, 1.0), (8, 0.0), (10, 1.0), (10, 0.0), (15, 1.0), (15, 0.0), (25, 1.0), (25, 0.0),
        ),
        few_steps=_tries(
            ("num_inference_steps", "eta"),
            (1, "auto"), (2, "auto"), (3, "auto"), (4, "auto"), (4, 0.0),
        ),
    ),
    "dps": Baseline(
        method=DPS(), about="the reward's gradient at each step; the best of k runs", needs_gradient=True,
        cost=Cost(count=None, each=4),
        grid=_tries(
            ("scale", "num_inference_steps", "eta"),
            (0.5, 25, 1.0), (1.0, 25, 1.0), (2.0, 25, 1.0), (4.0, 25, 1.0), (1.0, 10, 1.0), (2.0, 10, 1.0),
            (4.0, 10, 1.0), (8.0, 10, 1.0), (2.0, 10, 0.0), (4.0, 5, 1.0),
        ),
        few_steps=_tries(
            ("scale", "num_inference_steps", "eta"),
            (1.0, 4, "auto"), (2.0, 4, "auto"), (2.0, 8, "auto"), (2.0, 4, 0.0), (4.0, 4, 0.0),
        ),
    ),
    "das": Baseline(
        method=DAS(), about="SMC with the reward's gradient", needs_gradient=True,
        cost=Cost(count="particles", each=4),
        grid=_tries(
            ("temperature", "num_inference_steps", "eta"),
            (0.015, 25, 1.0), (0.06, 25, 1.0), (0.015, 10, 1.0), (0.03, 10, 1.0), (0.1, 10, 1.0), (0.3, 10, 1.0),
            (0.015, 5, 1.0), (0.03, 5, 1.0), (0.1, 5, 1.0), (0.3, 5, 1.0),
        ),
    ),
    "fk": Baseline(
        method=FKSteering(), about="SMC with Feynman-Kac potentials", cost=Cost(count="particles", each=2),
        grid=_tries(
            ("reward_weight", "potential", "num_inference_steps", "eta"),
            (1.0, "difference", 5, 1.0), (3.0, "difference", 5, 1.0), (10.0, "difference", 5, 1.0),
            (3.0, "max", 5, 1.0), (1.0, "difference", 10, 1.0), (3.0, "difference", 10, 1.0),
            (10.0, "difference", 10, 1.0), (3.0, "max", 10, 1.0), (3.0, "difference", 25, 1.0),
            (10.0, "difference", 25, 1.0),
        ),
        few_steps=_tries(
            ("reward_weight", "potential", "num_inference_steps", "eta"),
            (3.0, "difference", 4, "auto"), (10.0, "difference", 4, "auto"), (3.0, "max", 4, "auto"),
            (10.0, "difference", 2, "auto"), (10.0, "difference", 8, "auto"),
        ),
    ),
    "dno": Baseline(
        method=DNO(), about="all of the sampler's noise is optimised", needs_gradient=True,
        cost=Cost(count="iterations", each=4, once=2), steps=lambda _: DNO().iterations + 1,
        grid=_tries(
            ("learning_rate", "regularisation", "num_inference_steps", "eta"),
            (0.03, 0.0, 5, 1.0), (0.1, 0.0, 5, 1.0), (0.2, 0.0, 5, 1.0), (0.1, 0.1, 5, 1.0), (0.2, 1.0, 5, 1.0),
            (0.03, 0.0, 10, 1.0), (0.1, 0.0, 10, 1.0), (0.2, 0.0, 3, 1.0), (0.1, 0.0, 3, 1.0), (0.1, 0.0, 5, 0.0),
        ),
        few_steps=_tries(
            ("learning_rate", "regularisation", "num_inference_steps", "eta"),
            (0.1, 0.0, 1, "auto"), (0.2, 0.0, 1, "auto"), (0.1, 0.1, 1, "auto"), (0.1, 0.0, 2, "auto"),
            (0.2, 0.0, 4, "auto"),
        ),
    ),
    "reno": Baseline(
        method=ReNO(), about="the initial noise is optimised", needs_gradient=True, published={"eta": 0.0},
        cost=Cost(count="iterations", each=4, once=2), steps=lambda _: ReNO().iterations + 1,
        grid=_tries(
            ("reward_weight", "learning_rate", "num_inference_steps", "eta"),
            (1.0, 20.0, 5, 0.0), (1.0, 40.0, 5, 0.0), (1.0, 80.0, 5, 0.0), (1.0, 160.0, 5, 0.0), (1.0, 40.0, 10, 0.0),
            (1.0, 80.0, 10, 0.0), (1.0, 40.0, 3, 0.0), (1.0, 80.0, 3, 0.0), (1.0, 80.0, 5, 1.0), (1.0, 160.0, 5, 1.0),
        ),
        few_steps=_tries(
            ("reward_weight", "learning_rate", "num_inference_steps", "eta"),
            (1.0, 5.0, 1, "auto"), (1.0, 20.0, 1, "auto"), (1.0, 40.0, 1, "auto"), (1.0, 40.0, 2, "auto"),
            (1.0, 80.0, 4, "auto"),
        ),
    ),
    "noise-tilt": Baseline(
        method=NoiseTilt(), about="each step's noise leans towards the reward's gradient; the best of k runs",
        needs_gradient=True, cost=Cost(count=None, each=NoiseTilt.evaluations),
        grid=_tries(
            ("strength", "num_inference_steps", "eta"),
            (0.1, 25, 1.0), (0.2, 25, 1.0), (0.3, 25, 1.0), (0.5, 25, 1.0), (0.2, 10, 1.0), (0.3, 10, 1.0),
            (0.5, 10, 1.0), (0.7, 10, 1.0), (0.3, 5, 1.0), (0.5, 5, 1.0),
        ),
        few_steps=TILT_FEW_STEPS,
    ),
    "clean-tilt": Baseline(
        method=NoiseTilt(gradient_at="estimates"),
        about="each step's noise leans towards the reward's gradient at the clean estimate; the best of k runs",
        needs_gradient=True, cost=Cost(count=None, each=NoiseTilt.evaluations),
        grid=_tries(
            ("strength", "num_inference_steps", "eta"),
            (0.1, 25, 1.0), (0.2, 25, 1.0), (0.3, 25, 1.0), (0.5, 25, 1.0), (0.7, 25, 1.0), (0.3, 16, 1.0),
            (0.5, 16, 1.0), (0.3, 10, 1.0), (0.5, 10, 1.0), (0.7, 10, 1.0),
        ),
        few_steps=TILT_FEW_STEPS,
    ),
    "lidar": Baseline(
        method=LiDAR(), about="samples of a few steps, weighted by their rewards, steer the latent",
        cost=Cost(count="samples", each=lambda method, _: 2 * method.lookahead_steps, once=2),
        grid=_tries(
            ("temperature", "strength", "lookahead_steps", "num_inference_steps", "eta"),
            (0.3, 1.0, 3, 25, 1.0), (0.1, 1.0, 3, 25, 1.0), (1.0, 1.0, 3, 25, 1.0), (0.3, 3.0, 3, 25, 1.0),
            (0.3, 1.0, 5, 25, 1.0), (0.3, 1.0, 3, 10, 1.0), (0.1, 1.0, 3, 10, 1.0), (0.3, 3.0, 3, 10, 1.0),
            (0.3, 1.0, 5, 10, 0.0), (0.1, 3.0, 5, 10, 1.0),
        ),
    ),
    "date": Baseline(
        method=DATE(), about="a few normalised steps of the prompt's embedding; the best of k runs",
        needs_gradient=True,
        cost=Cost(count=None, each=lambda method, T: 2 * T + 2 * len(method.updates(T))),
        grid=_tries(
            ("length", "share", "num_inference_steps", "eta"),
            (0.5, 0.1, 25, 1.0), (1.0, 0.1, 25, 1.0), (2.0, 0.1, 25, 1.0), (4.0, 0.1, 25, 1.0), (1.0, 0.4, 25, 1.0),
            (1.0, 0.1, 10, 1.0), (2.0, 0.1, 10, 1.0), (4.0, 0.1, 10, 1.0), (2.0, 0.4, 10, 1.0), (2.0, 0.1, 10, 0.0),
        ),
    ),
    "prompt-embedding": Baseline(
        method=prompt_embedding, about="the prompt embedding is optimised in place of the null text", grid=PROMPT_GRID
    ),
    "shared-null": Baseline(
        method=shared_null, about="one null text for all steps", steps=lambda T: 2 * T
    ),
}  # fmt: skip
"""The methods by name. Every grid has ten settings, and T and η are among them. `bench tune` notes where the choice is
at the edge of a grid, which should then be moved."""
