"""What is to be sampled: arms × prompts × seeds, in an order in which any beginning is a fair comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nulltta.algorithm.problem import Problem
from nulltta.alignment import METHODS
from nulltta.benchmark.repeated import BestOf
from nulltta.config import NullTTAConfig
from nulltta.contracts import Stream
from nulltta.errors import InvalidValue

Key = tuple[str, int, int]
"""What a row is of: its arm's key, the number of its prompt, its seed."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method with all its settings, for one target at one budget; in JSON's own types.

    Attributes:
        name: the contender's.
        target: the reward that is raised, as `nulltta.rewards.load` reads it.
        budget: a label, such as "300 evaluations"; "" where none applies.
        method: a name that `align` knows.
        settings: the method's own fields.
        samples: how many runs of it, of which the best counts.
        config: fields of `NullTTAConfig`.
    """

    name: str
    target: str
    budget: str = ""
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return "|".join((self.target, self.budget, self.name))

    def build(self) -> tuple[Callable[[Problem], Stream], NullTTAConfig]:
        """The method and its configuration, as `align` takes them."""
        method: Any = METHODS[self.method]
        if self.settings:
            method = replace(method, **self.settings)
        return method if self.samples == 1 else BestOf(method, self.samples), NullTTAConfig(**self.config)


@dataclass(frozen=True)
class SamplingJob:
    """Some prompts that one arm samples in one batch, with one seed."""

    arm: Arm
    prompts: tuple[int, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that determines a benchmark's rows.

    Attributes:
        prompts: in the order in which they are sampled.
        seeds: of the noise; a seed gives every arm and every prompt the same.
        measures: rewards that are measured on every image, besides the targets.
        gallery: of how many prompts, the first ones, the first seed's images are kept.
    """

    model: str
    prompts: Sequence[str]
    seeds: Sequence[int]
    arms: Sequence[Arm]
    measures: Sequence[str] = ()
    batch_size: int = 8
    gallery: int = 6

    def __post_init__(self) -> None:
        for name in ("prompts", "seeds", "arms"):
            if not getattr(self, name):
                raise InvalidValue(f"a benchmark without {name} has nothing to do")
        if self.batch_size < 1:
            raise InvalidValue(f"the batch size must be 1 or more, not {self.batch_size}")
        if len({arm.key for arm in self.arms}) < len(self.arms):
            raise InvalidValue("two arms of a benchmark have the same target, budget and name")

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(arm.target for arm in self.arms))

    @property
    def images(self) -> int:
        return len(self.arms) * len(self.prompts) * len(self.seeds)

    def jobs(self, done: Collection[Key] = ()) -> Iterator[SamplingJob]:
        """What is left to do: every arm on the first prompts, then every arm on the next.

        A prompt's image does not depend on its batch, so that only what is missing of a batch is sampled.
        """
        for start in range(0, len(self.prompts), self.batch_size):
            batch = range(start, min(start + self.batch_size, len(self.prompts)))
            for seed in self.seeds:
                for arm in self.arms:
                    missing = tuple(i for i in batch if (arm.key, i, seed) not in done)
                    if missing:
                        yield SamplingJob(arm, missing, seed)

    def grown(self, other: Plan) -> Plan:
        """This plan with the other's further arms, prompts and seeds; what it has stays where it is.

        Raises:
            NullTTAError: the other lacks something of it, or has it otherwise.
        """
        theirs = {arm.key: arm for arm in other.arms}
        for arm in self.arms:
            if theirs.get(arm.key) != arm:
                raise InvalidValue(f"arm '{arm.key}' {'would be another' if arm.key in theirs else 'is missing'}")
        if list(other.prompts[: len(self.prompts)]) != list(self.prompts):
            raise InvalidValue("the prompts do not begin with those that it has")
        if missing := set(self.seeds) - set(other.seeds):
            raise InvalidValue(f"seed {min(missing)} is missing")
        mine = {arm.key for arm in self.arms}
        return replace(other, arms=[*self.arms, *(arm for arm in other.arms if arm.key not in mine)])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        return cls(**{**record, "arms": [Arm(**arm) for arm in record["arms"]]})
