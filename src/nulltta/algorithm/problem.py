"""`Problem`: all that a method is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.memory import MicroBatch
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel, NoiseStep, Reward, Selector
from nulltta.scoring import greedy


@dataclass(frozen=True, slots=True)
class Problem:
    """All that a method is given.

    Attributes:
        cond, null: c and φ, first dimension B, float32.
        seeds: one a prompt.
        latents: (B, K, C, h, w), the initial latents x_T.
        guard: a second reward, watched and never optimised: where optimising lowers it, φ' stays as it was and
            is frozen.
        start: where φ' begins, first dimension B; φ if None.
        memory: how many rows go through the networks at once.
    """

    model: GuidedModel
    prompts: Sequence[str]
    cond: Embedding
    null: Embedding
    reward: Reward
    config: NullTTAConfig
    seeds: Sequence[int]
    latents: Tensor
    guard: Reward | None = None
    selector: Selector = greedy
    start: Embedding | None = None
    memory: MicroBatch = field(default_factory=MicroBatch, compare=False)

    def schedule(self) -> list[NoiseStep]:
        """The model's denoising steps at this run's T and η."""
        steps = self.model.schedule(self.config.num_inference_steps)
        return [replace(step, eta=self.config.eta) for step in steps]

    def noise(self, index: int, step: NoiseStep, like: Tensor, particles: int) -> Tensor:
        """(B, K, C, h, w), the stochastic part of K candidates; like: (B, C, h, w)."""
        if self.config.conventions == "release":
            return randomness.by_timestep(step, like, particles)
        return randomness.seeded(self.seeds, index, like, particles)

    def generators(self, index: int, purpose: str) -> list[torch.Generator]:
        """One a prompt, for estimators and selectors that draw."""
        return [randomness.generator(seed, purpose, index) for seed in self.seeds]
