"""The latents on which a null text is fitted: trajectories of plain sampling and of sampling under the null text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import predict_branches
from nulltta.algorithm.sampling import denoise
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, NoiseStep
from nulltta.null_text.fitted import FittedNullText


@dataclass
class Pool:
    """Trajectories that are replaced in turn, oldest first.

    Attributes:
        prompts: (N,), the number of each trajectory's prompt.
        latents: (N, T, C, h, w) in float16, x_t at each denoising step.
        next: the place of the next trajectory to be replaced.
    """

    prompts: Tensor
    latents: Tensor
    next: int = 0

    def replace(self, prompts: Tensor, latents: Tensor) -> None:
        """Put trajectories in the place of the oldest."""
        places = (self.next + torch.arange(len(prompts))) % len(self.prompts)
        self.prompts[places], self.latents[places] = prompts, latents.to(self.latents)
        self.next = (self.next + len(prompts)) % len(self.prompts)


@dataclass(frozen=True)
class TrajectorySampler:
    """Samples whole trajectories under guidance.

    Attributes:
        model: the model.
        steps: the T denoising steps.
        config: the guidance and its scale.
        memory: how many rows go through the networks at once.
    """

    model: GuidedModel
    steps: Sequence[NoiseStep]
    config: NullTTAConfig
    memory: MicroBatch

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], null_text: FittedNullText | None = None) -> Tensor:
        """Sample one trajectory per prompt and return its latents at every noise level.

        Args:
            prompts: N prompts.
            seeds: one per prompt.
            null_text: what replaces φ; None for plain sampling.

        Returns:
            (N, T + 1, C, h, w): x_T to x_1, and x_0.
        """

        def of_rows(rows: Tensor) -> Tensor:
            chosen = rows.tolist()
            return self._together([prompts[i] for i in chosen], [seeds[i] for i in chosen], null_text)

        return torch.cat(self.memory.map(of_rows, len(prompts)))

    def _together(self, prompts: Sequence[str], seeds: Sequence[int], null_text: FittedNullText | None) -> Tensor:
        """Sample trajectories in one batch."""
        model, steps = self.model, self.steps
        cond, null = model.encode(prompts, self.config.negatives(prompts, [""] * len(prompts)))
        x = randomness.initial_latents(model, seeds, 1, len(steps))[:, 0].to(next(iter(null.values())).device)

        def branches(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            phi = null if null_text is None else null_text.embedding(steps[i].timestep, null, cond)
            return predict_branches(model, x, steps[i], phi, cond)

        def noise(i: int, x: Tensor) -> Tensor:
            return randomness.seeded(seeds, i, x, 1)[:, 0]

        path = [x]
        path += [x_next for _, _, x_next in denoise(model, x, steps, branches, noise, self.config.guidance_scale)]
        return torch.stack(path, 1)
