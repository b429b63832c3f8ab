"""What a method is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.memory import MicroBatch
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel, NoiseStep, Reward
from nulltta.errors import InvalidValue

NullPath: TypeAlias = Callable[[int], Embedding]
"""Index of a denoising step -> φ' of B prompts there, first dimension B."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A batch of B prompts, the reward to raise, and all else that a method is given.

    Attributes:
        model: the frozen model.
        prompts: the B prompts.
        cond: c, first dimension B, in float32.
        null: φ, likewise.
        reward: the reward to raise.
        config: the settings.
        seeds: one per prompt.
        latents: (B, K, C, h, w), the initial latents x_T.
        start: the φ' of each denoising step before it is optimised; φ if None.
        memory: how many rows go through the networks at once.
        gradient_memory: the same for rows that a gradient is taken of, which need more.
        about: what null texts record of the model, in JSON's types, found before sampling.
    """

    model: GuidedModel
    prompts: Sequence[str]
    cond: Embedding
    null: Embedding
    reward: Reward
    config: NullTTAConfig
    seeds: Sequence[int]
    latents: Tensor
    start: NullPath | None = None
    memory: MicroBatch = field(default_factory=MicroBatch, compare=False)
    gradient_memory: MicroBatch = field(default_factory=MicroBatch, compare=False)
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def schedule(self) -> list[NoiseStep]:
        """Return the model's denoising steps at this run's T and η.

        Raises:
            InvalidValue: if they draw more noise than the paper's and its consistency term is asked for.
        """
        steps = [step.with_eta(self.config.eta) for step in self.model.schedule(self.config.num_inference_steps)]
        require_conventions(self.config, steps)
        return steps

    def noise(self, index: int, step: NoiseStep, like: Tensor, particles: int) -> Tensor:
        """Return the noise of K candidates at denoising step `index`, (B, K, C, h, w), for `like` (B, C, h, w)."""
        if self.config.conventions == "release":
            return randomness.by_timestep(step, like, particles)
        return randomness.seeded(self.seeds, index, like, particles)

    def generators(self, index: int, purpose: str) -> list[torch.Generator]:
        """Return one generator per prompt for a method that draws at step `index`."""
        return [randomness.generator(seed, purpose, index) for seed in self.seeds]


def require_conventions(config: NullTTAConfig, steps: Sequence[NoiseStep]) -> None:
    """Refuse the paper's consistency term for steps that draw more noise than those that it belongs to.

    Raises:
        InvalidValue: if the conventions are not "exact" and a step draws more than the posterior's noise.
    """
    if config.conventions != "exact" and any(step.eta > 1 + 1e-6 for step in steps):
        raise InvalidValue(
            f"must be exact, not {config.conventions}: this model's own step draws more noise than DDPM's, to which "
            "the paper's consistency term belongs (or set eta to 1)",
            "conventions",
        )
