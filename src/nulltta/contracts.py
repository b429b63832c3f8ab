"""The vocabulary of the house: what a model, a reward, a step and an outcome are.

Images are float tensors (B, 3, H, W) with values in [0, 1], everywhere; this is the one place that says so.
B counts prompts, K candidates ("particles") of one prompt, N any batch of latents, C×h×w the shape of a latent.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from nulltta.errors import NullTTAError as NullTTAError

Embedding: TypeAlias = Mapping[str, Tensor]
"""What conditions one branch: named tensors, first dimension B. Stable Diffusion: {"tokens": (B, 77, 768)}.

Floating-point tensors are optimised; whole-number and boolean ones (a mask, a length) are fixed."""


@dataclass(frozen=True, slots=True)
class NoiseStep:
    """One step of a model's sampling schedule.

    Attributes:
        timestep: t, on the scale of the model's training schedule; whole for diffusion, between for flows.
        alpha_bar: ᾱ_t, the share of signal in the latent's variance.
        alpha_bar_previous: ᾱ of the less noisy latent that this step leads to.
        consistency: the coefficient of ‖ε̃(φ') − ε̃(φ)‖² in the objective, (1−α_t)/(2α_t(1−ᾱ_t)), expressed for
            the quantity that `GuidedModel.predict` returns (ε, v or a flow's velocity).
        eta: the share of the posterior's deviation that is drawn anew: 0 deterministic, 1 ancestral.
    """

    timestep: float
    alpha_bar: float
    alpha_bar_previous: float
    consistency: float
    eta: float = 1.0


@runtime_checkable
class GuidedModel(Protocol):
    """A frozen diffusion model as the core sees it: one branch at a time, guidance is the core's business.

    A family whose pipeline does more than plain classifier-free guidance may also have `guided(null, cond, scale)`;
    a model that computes in float16 says so by `dtype`, and one that can recompute activations instead of keeping
    them does so after `checkpoint()`. A model of a video decodes to (N, F, 3, H, W), and a reward's score of it is the
    mean over its frames.
    """

    name: str

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """Prompts and negative prompts -> (c, φ), each with first dimension B, in float32, without gradient."""
        ...

    def schedule(self, num_inference_steps: int) -> Sequence[NoiseStep]:
        """The denoising steps, noisiest first."""
        ...

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """x_T: (batch, C, h, w)."""
        ...

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """One branch of the denoiser at x (N, C, h, w) -> ε, v or velocity (N, C, h, w)."""
        ...

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        """x̂0, Tweedie's estimate of the clean latent (N, C, h, w)."""
        ...

    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        """The stochastic step as the Gaussian it is: mean (N, C, h, w) and deviation of the next latent."""
        ...

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Clean latents (N, C, h, w) -> images (N, 3, H, W) in [0, 1], with gradient."""
        ...


@runtime_checkable
class Reward(Protocol):
    """A measure of better, higher being better."""

    name: str
    differentiable: bool

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] and their B prompts -> scores (B,)."""
        ...


class Selector(Protocol):
    """Which of the candidates go on: (scores (B, K), one generator a prompt) -> indices (B,)."""

    def __call__(self, scores: Tensor, generators: Sequence[torch.Generator]) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Step:
    """What happened in one denoising step, or in one iteration of a method that samples to the end again and again.

    Attributes:
        index: i, from 0.
        timestep: t; 0 for an iteration, which ends in clean images.
        inner_rewards: (n, B), the reward at each inner step, before its update.
        candidate_rewards: (B, K), of the candidates that this step drew.
        selected: (B,), the candidate that went on.
        kl: (B,), how far φ' moved this step's distribution: the consistency term without its weights, in nats.
        preview: (B, 3, H, W), the selected candidate's clean estimate; None in a stored trace, or if not decoded.
    """

    index: int
    timestep: float
    inner_rewards: Tensor
    candidate_rewards: Tensor
    selected: Tensor
    kl: Tensor
    preview: Tensor | None = None

    @property
    def selected_rewards(self) -> Tensor:
        """(B,), of the candidates that went on; to be asked only of a step that scored its candidates."""
        return self.candidate_rewards.gather(1, self.selected[:, None].to(self.candidate_rewards.device))[:, 0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method returns when its stream of steps ends.

    Attributes:
        candidates: (B, K, 3, H, W), the decoded last candidates.
        rewards: (B, K), theirs.
        selected: (B,), the best.
        initial_latents: (B, C, h, w), the x_T that was kept; where a method moves it, before that.
        initial_rewards: (B, K), of the clean estimates of all initial latents; None if they were not scored.
        nulls: one φ' a denoising step, each with first dimension B; empty for methods that learn none.
    """

    candidates: Tensor
    rewards: Tensor
    selected: Tensor
    initial_latents: Tensor
    initial_rewards: Tensor | None = None
    nulls: Sequence[Embedding] = ()


Stream: TypeAlias = Generator[Step, None, Outcome]
OnStep: TypeAlias = Callable[[Step], None]
