"""The settings of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from nulltta.config import FormName, number, one_of, whole
from nulltta.config.settings import LARGEST_SEED, MOST
from nulltta.errors import InvalidValue

LEARNING_RATES: Mapping[str, float] = {"constant": 2e-3, "steps": 5e-3, "prompt": 5e-5, "tokens": 1e-3}
"""The peak learning rate of each form. One step of the form "prompt" moves all numbers of Δ, many weights together."""
FEW_STEPS = 8
"""Up to how many denoising steps a null text is fitted at all of them."""
PRIOR_WEIGHTS: Mapping[str, float] = {"constant": 3e-4, "steps": 3e-4, "prompt": 3e-4}
"""λ2 of the prior by form; the form "tokens" keeps that of the model's preset.

Prompts share little of the direction in which the reward rises: a long Δ is mostly noise of the training prompts, and
the prior of test-time alignment, which a single prompt's whole gradient pulls at, would leave none (docs/log.md)."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a null text is fitted.

    Attributes:
        form: what the null text depends on; see `nulltta.null_text.forms`.
        tokens: of the form "tokens", how many there are for each text encoder; 1 or more.
        updates: the number of updates of the null text; 1 or more.
        rows: the latents per update; 1 or more.
        learning_rate: Adam's peak learning rate; above 0. None means the form's own.
        warmup: the updates over which the learning rate rises; it then falls along half a cosine; 0 or more.
        average: the decay of the exponential moving average of the weights, which is what is kept; from 0 to below 1.
        pool: the number of trajectories of which latents are drawn; `rows` or more. By it and the two settings below,
            each is used 8 times by default: further latents of the same prompt say little that is new.
        fresh: how many of them are replaced at a time; 1 or more.
        refresh_every: after how many updates they are replaced; 1 or more.
        between: (from, to), the share of the denoising steps at which the null text differs from φ. None means all of
            them for the form "tokens", so that tools without steps can use it, and where there are few (`FEW_STEPS`),
            the first of which decides most of the picture; else (0.33, 1).
        validate_every: after how many updates pictures of the validation prompts are compared; 1 or more.
        seed: the seed of all draws; 0 or more.

    Raises:
        InvalidValue: if a value is outside its range; the error names the field.
    """

    form: FormName = "prompt"
    tokens: int = 8
    updates: int = 1000
    rows: int = 24
    learning_rate: float | None = None
    warmup: int = 30
    average: float = 0.99
    pool: int = 96
    fresh: int = 12
    refresh_every: int = 4
    between: tuple[float, float] | None = None
    validate_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        one_of(self, "form", get_args(FormName))
        for name in ("tokens", "updates", "refresh_every", "validate_every"):
            whole(self, name, at_least=1)
        for name in ("rows", "fresh"):
            whole(self, name, at_least=1, at_most=MOST)
        whole(self, "warmup", at_least=0)
        whole(self, "seed", at_least=0, at_most=LARGEST_SEED)
        whole(self, "pool", at_least=max(self.rows, self.fresh))
        if self.learning_rate is not None:
            number(self, "learning_rate", positive=True)
        number(self, "average")
        if self.average >= 1:
            raise InvalidValue(f"must be below 1, not {self.average:g}", "average")
        if self.between is not None and (len(self.between) != 2 or not 0 <= self.between[0] < self.between[1] <= 1):
            raise InvalidValue(f"must be two shares of the denoising steps, 0 <= from < to <= 1, not {self.between}",
                               "between")  # fmt: skip

    @property
    def peak(self) -> float:
        """The peak learning rate, with the form's own filled in."""
        return LEARNING_RATES[self.form] if self.learning_rate is None else self.learning_rate

    def span(self, steps: int) -> tuple[int, int]:
        """Return (first, end), those of a number of denoising steps at which the null text differs from φ."""
        everywhere = self.form == "tokens" or steps <= FEW_STEPS
        shares = self.between or ((0.0, 1.0) if everywhere else (0.33, 1.0))
        first, end = (round(share * steps) for share in shares)
        return first, max(end, first + 1)
