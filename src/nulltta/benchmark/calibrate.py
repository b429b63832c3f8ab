"""`nulltta bench calibrate`: how many evaluations per second each contender makes on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nulltta.benchmark.contenders import CONTENDERS, named
from nulltta.benchmark.request import Say, check_sampling, check_targets, measured_task, parsed
from nulltta.benchmark.run import WorkerMachine
from nulltta.benchmark.timing import TIMED_STEPS, seconds_per_evaluation
from nulltta.benchmark.tuned import TunedSettings, nearest
from nulltta.config import NullTTAConfig


@dataclass(frozen=True, kw_only=True)
class CalibrationRequest:
    """Which contenders are timed, and for what.

    Attributes:
        model: what `load_model` takes.
        target: the reward to raise.
        seconds: the budgets of interest, in seconds per image.
        contenders: names of contenders or of groups; those of fixed cost are not timed.
        prompts: the tuning prompts.
        config: the fields of `NullTTAConfig` that differ from the model's preset.
        settings: the contenders' own settings, one record per target and budget.

    Raises:
        InvalidValue: if any part is invalid.
    """

    model: str
    target: str
    seconds: Sequence[float]
    contenders: Sequence[str]
    prompts: Sequence[str]
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Sequence[TunedSettings] = ()

    def __post_init__(self) -> None:
        for each in self.seconds:
            parsed(f"{each:g}s")
        named(self.contenders)
        check_sampling(self.prompts, [0], batch_size=1)
        check_targets(self.model, [self.target])
        NullTTAConfig.preset(self.model, **self.config)


def evaluations_per_second(asked: CalibrationRequest, machine: WorkerMachine, say: Say) -> Iterator[tuple[str, float]]:
    """Yield the name and the rate of each contender, as soon as it is timed.

    Args:
        asked: what to time.
        machine: where to run.
        say: told in one line what happens.
    """
    torch.set_num_threads(machine.threads_each)
    say("measuring the reward's scale on plain samples of the tuning prompts")
    model = machine.load(asked.model)
    config = NullTTAConfig.preset(asked.model, **asked.config)
    tuned = nearest(asked.settings, asked.target, TIMED_STEPS * config.num_inference_steps)
    own = {} if tuned is None else tuned.settings
    task = measured_task(model, asked.target, asked.prompts, config, own)
    names = [name for name in named(asked.contenders) if not CONTENDERS[name].fixed]
    for place, name in enumerate(names):
        say(f"timing {name} ({place + 1} of {len(names)})")
        yield name, 1 / seconds_per_evaluation(name, task, model, asked.prompts)
