"""What a benchmark samples: arms × prompts × seeds, in an order in which any beginning is a fair comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nulltta.algorithm.problem import Problem
from nulltta.alignment import METHODS
from nulltta.benchmark.fitted import FittedSampling
from nulltta.benchmark.noise_network import NoiseNetworkSampling
from nulltta.benchmark.repeated import BestOf
from nulltta.config import NullTTAConfig
from nulltta.contracts import Stream
from nulltta.errors import InvalidValue

FITTED, MOVED_NOISE = "fitted", "moved noise"
"""The methods that sample under what was learnt once, which only the benchmark has: those of `LEARNT`."""
LEARNT: Mapping[str, Any] = {FITTED: FittedSampling(), MOVED_NOISE: NoiseNetworkSampling()}
RowKey = tuple[str, int, int]
"""What identifies a row: the key of its arm, the number of its prompt, its seed."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method with all its settings, for one target at one budget; everything is a JSON type.

    Attributes:
        name: the contender's name.
        target: the reward that is raised, as `nulltta.rewards.load` reads it.
        budget: a label such as "300 evaluations"; "" where no budget applies.
        method: the name of a method of `align`, or of `LEARNT`.
        settings: the fields of the method itself.
        samples: the number of runs, of which the best counts.
        config: the fields of `NullTTAConfig`.
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
        """What identifies the arm in a plan."""
        return "|".join((self.target, self.budget, self.name))

    def build(self) -> tuple[Callable[[Problem], Stream], NullTTAConfig]:
        """Make the method and its configuration, as `align` takes them."""
        method: Any = LEARNT[self.method] if self.method in LEARNT else METHODS[self.method]
        if self.settings:
            method = replace(method, **self.settings)
        return method if self.samples == 1 else BestOf(method, self.samples), NullTTAConfig(**self.config)


@dataclass(frozen=True)
class SamplingJob:
    """Some prompts that one arm samples in one batch, with the noise of one draw."""

    arm: Arm
    prompts: tuple[int, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that determines the rows of a benchmark.

    Attributes:
        model: what `load_model` takes.
        prompts: the prompts in the order in which they are sampled.
        seeds: the draws of noise, by number; in one draw every arm has the same noise, and every prompt its own.
        arms: the arms that are compared.
        measures: rewards that are measured on every image besides the targets.
        batch_size: the number of prompts that are sampled together.
        gallery: the number of prompts, from the first, whose images are kept for the first seed.

    Raises:
        InvalidValue: if there is nothing to sample, or if two arms have the same target, budget and name.
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
                raise InvalidValue(f"a benchmark without {name} has nothing to sample")
        if self.batch_size < 1:
            raise InvalidValue(f"must be 1 or more, not {self.batch_size}", field="batch_size")
        if len({arm.key for arm in self.arms}) < len(self.arms):
            raise InvalidValue("two arms of a benchmark have the same target, budget and name")

    @property
    def targets(self) -> list[str]:
        """The targets of all arms, each once."""
        return list(dict.fromkeys(arm.target for arm in self.arms))

    @property
    def images(self) -> int:
        """The number of images in total."""
        return len(self.arms) * len(self.prompts) * len(self.seeds)

    def jobs(self, done: Collection[RowKey] = ()) -> Iterator[SamplingJob]:
        """Yield what is left to sample: every arm on the first prompts, then every arm on the next.

        An image does not depend on its batch, so that only the missing images of a batch are sampled.

        Args:
            done: the rows that exist.
        """
        for start in range(0, len(self.prompts), self.batch_size):
            batch = range(start, min(start + self.batch_size, len(self.prompts)))
            for seed in self.seeds:
                for arm in self.arms:
                    missing = tuple(i for i in batch if (arm.key, i, seed) not in done)
                    if missing:
                        yield SamplingJob(arm, missing, seed)

    def grown(self, other: Plan) -> Plan:
        """Return this plan with the further arms, prompts and seeds of another one; what it has keeps its place.

        Raises:
            InvalidValue: if the other plan lacks something of this one, or has it otherwise.
        """
        theirs = {arm.key: arm for arm in other.arms}
        for arm in self.arms:
            if theirs.get(arm.key) != arm:
                raise InvalidValue(f"arm '{arm.key}' {'would be another' if arm.key in theirs else 'is missing'}")
        if list(other.prompts[: len(self.prompts)]) != list(self.prompts):
            raise InvalidValue("the prompts do not begin with those of the folder")
        if missing := set(self.seeds) - set(other.seeds):
            raise InvalidValue(f"seed {min(missing)} is missing")
        mine = {arm.key for arm in self.arms}
        return replace(other, arms=[*self.arms, *(arm for arm in other.arms if arm.key not in mine)])

    def as_json(self) -> dict[str, Any]:
        """Return the plan in JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """Read a plan that `as_json` wrote."""
        return cls(**{**record, "arms": [Arm(**arm) for arm in record["arms"]]})
