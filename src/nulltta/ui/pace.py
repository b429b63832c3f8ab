"""How long a run takes: predicted before it begins, and corrected while it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from nulltta.algorithm.budget import by_step, of_inner_step, planned
from nulltta.config import NullTTAConfig

WEIGHT_OF_LATEST = 0.3
"""The share of the latest measurement in the running averages."""
INNER_TO_CANDIDATE = 3.0
"""How much longer one evaluation of an inner step is taken to last than one of a candidate, before one is measured: its
backward pass also goes through the decoder and the reward."""


@dataclass
class Pace:
    """The speed of one model with one reward on this machine.

    Attributes:
        sampling: the seconds per prompt and denoiser evaluation without gradient; None before it is measured.
        inner: those per evaluation of an inner step, with its share of the decoder and of the reward.
    """

    sampling: float | None = None
    inner: float | None = None

    def observe(self, seconds: float, config: NullTTAConfig, prompts: int, inner_steps: int) -> None:
        """Take note of how long a denoising step took.

        Args:
            seconds: from the end of the step before.
            config: the settings of the run.
            prompts: the number of pictures that are sampled together.
            inner_steps: the number of inner steps in it.
        """
        candidates = 2 * config.num_particles * prompts
        if inner_steps == 0:
            self.sampling = _averaged(self.sampling, seconds / candidates)
            return
        inner = of_inner_step(config) * inner_steps * prompts
        if self.sampling is None:
            self.sampling = seconds / (candidates + INNER_TO_CANDIDATE * inner)
        self.inner = _averaged(self.inner, max(0.0, seconds - self.sampling * candidates) / inner)

    def of_steps(self, config: NullTTAConfig, prompts: int) -> list[float]:
        """Predict the seconds of each denoising step and, last, of plain sampling.

        Before anything is measured, they are in units of an evaluation, which is enough to tell how far a run is.
        """
        sampling = 1.0 if self.sampling is None else self.sampling
        inner = INNER_TO_CANDIDATE * sampling if self.inner is None else self.inner
        counts, each = planned(config), of_inner_step(config)
        steps = [prompts * (2 * config.num_particles * sampling + each * inner * count) for count in counts]
        return [*steps, 2 * sampling * prompts * len(counts)]

    def predicted(self, config: NullTTAConfig, prompts: int) -> float | None:
        """Predict the seconds of a whole run; None before anything is measured."""
        return None if self.sampling is None else sum(self.of_steps(config, prompts))


def work_of(config: NullTTAConfig, prompts: int) -> int:
    """Return the denoiser evaluations of a whole run, plain sampling included."""
    return prompts * (sum(by_step(config)) + 2 * config.num_inference_steps)


def _averaged(before: float | None, latest: float) -> float:
    return latest if before is None else (1 - WEIGHT_OF_LATEST) * before + WEIGHT_OF_LATEST * latest
