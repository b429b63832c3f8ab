"""The contract of a method: a stream of steps that ends in an outcome."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from nulltta.contracts.model import Embedding


@dataclass(frozen=True)
class Step:
    """What happened in one denoising step, or in one iteration of a method that samples to the end repeatedly.

    Attributes:
        index: i, from 0.
        timestep: t; 0 for an iteration, which ends in clean images.
        inner_rewards: (n, B), the reward at each inner step, before its update.
        candidate_rewards: (B, K), of the candidates that this step drew.
        selected: (B,), the candidate that was kept.
        kl: (B,), how far φ' moved this step's distribution, in nats: the consistency term without its weights, or
            under a `kl_target` the exact divergence that it bounds. NaN where it was not evaluated, as in plain
            sampling under a learnt null text.
        decode_preview: decodes `preview`; None if there is none, as in a stored trace.
    """

    index: int
    timestep: float
    inner_rewards: Tensor
    candidate_rewards: Tensor
    selected: Tensor
    kl: Tensor
    decode_preview: Callable[[], Tensor] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def unscored(
        cls, index: int, timestep: float, batch: int, decode_preview: Callable[[], Tensor] | None = None,
        *, kl: float = 0.0,
    ) -> Step:  # fmt: skip
        """Return the step of a method that scored no candidates, for `batch` prompts."""
        first, nats = torch.zeros(batch, dtype=torch.long), torch.full((batch,), kl)
        return cls(index, timestep, torch.empty(0, batch), torch.empty(batch, 0), first, nats, decode_preview)

    @cached_property
    def preview(self) -> Tensor | None:
        """(B, 3, H, W), the clean estimate of what was kept, decoded when it is first read."""
        return None if self.decode_preview is None else self.decode_preview()

    def without_preview(self) -> Step:
        """Return the step as a trace keeps it."""
        return replace(self, decode_preview=None)

    @property
    def selected_rewards(self) -> Tensor:
        """(B,), the rewards of the candidates that were kept; of scored steps only."""
        return self.candidate_rewards.gather(1, self.selected[:, None].to(self.candidate_rewards.device))[:, 0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method returns when its stream of steps ends.

    Attributes:
        candidates: (B, K, 3, H, W), the decoded last candidates.
        rewards: (B, K), their rewards.
        selected: (B,), the best candidate.
        initial_latents: (B, C, h, w), the x_T that was kept; before it is moved, for a method that moves it.
        initial_rewards: (B, K), of the clean estimates of all initial latents; None if they were not scored.
        nulls: φ' at each denoising step, each with first dimension B; empty for methods that learn none.
        latents: (B, K, C, h, w), what the candidates were decoded from; None if the method does not return them, so
            that a reward that reads latents cannot score its candidates again.
        noise: (B, C, h, w) per denoising step, the noise that was kept; empty if it is what the seed gives the
            selected candidate.
    """

    candidates: Tensor
    rewards: Tensor
    selected: Tensor
    initial_latents: Tensor
    initial_rewards: Tensor | None = None
    nulls: Sequence[Embedding] = ()
    latents: Tensor | None = None
    noise: Sequence[Tensor] = ()


Stream: TypeAlias = Generator[Step, None, Outcome]
"""A run of a method: it yields its steps and returns its outcome. A method is a callable (Problem) -> Stream."""

OnStep: TypeAlias = Callable[[Step], None]
