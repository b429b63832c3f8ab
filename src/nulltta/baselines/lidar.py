"""Samples of a few steps, scored beforehand, steer the sampling towards those of high reward without a gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import look
from nulltta.baselines.particles import move, predict, refuse_null_text_settings
from nulltta.config import number, whole
from nulltta.contracts import NoiseStep, Outcome, Step, Stream


@dataclass(frozen=True, kw_only=True)
class LiDAR:
    """Guide by lookahead samples: N cheap samples of the model stand for its distribution (LiDAR, arXiv 2602.03211).

    With samples x_1, ..., x_N of a few deterministic steps and their rewards r_j, the tilted distribution
    p(x_0)·exp(r(x_0)/τ) has the clean estimate, in closed form and without any gradient of the reward,

        x̂0 + γ·Σ_j (v_j − u_j)·x_j,  u = softmax(ℓ_j),  v = softmax(ℓ_j + r_j/τ),
        ℓ_j = −ᾱ_t/(2(1 − ᾱ_t))·‖x̂0(x_t) − x_j‖²,

    so that a step leads to where the samples of high reward near x_t are. Late steps, at which one sample is much
    nearer than all others, are plain steps. Of the summary of the paper that this follows, "softmax-weighted lookahead
    samples of a few steps steer the latent in closed form" is all that is stated: the likelihood ℓ_j at x̂0 (which
    holds for diffusion and flow models alike) instead of x_t, the deterministic samples and the strength γ are ours,
    and were not verified against the official implementation. The image of the steered run is returned, or a lookahead
    sample where that has the higher reward.

    Cost per prompt with m lookahead steps: 2mN + 2T denoiser branches without gradient; N + 1 images decoded and
    scored.

    Attributes:
        samples: N.
        lookahead_steps: m.
        temperature: τ, in the unit of the reward.
        strength: γ; 0 is plain sampling beside the samples.
    """

    samples: int = 16
    lookahead_steps: int = 3
    temperature: float = 0.1
    strength: float = 1.0

    def __post_init__(self) -> None:
        whole(self, "samples", at_least=1)
        whole(self, "lookahead_steps", at_least=1)
        number(self, "temperature", positive=True)
        number(self, "strength")

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, B, N = problem, len(problem.prompts), self.samples
        refuse_null_text_settings(p.config)
        short = replace(p, config=replace(p.config, num_inference_steps=self.lookahead_steps, eta=0.0))
        x = starts = _own_starts(short, N)
        for step in short.schedule():
            x, _ = move(short, x, predict(short, x, step), step)
        ahead = look(short, x, None)
        logits = ahead.rewards.to(x) / self.temperature  # r_j/τ, (B, N)

        x = initial = p.latents[:, :1]
        for i, step in enumerate(p.schedule()):
            eps = predict(p, x, step)
            shift = self._shift(p.model.predict_x0(x[:, 0], eps[:, 0], step), ahead.x0, logits, step)
            mean, std = move(p, x, eps + (shift / _slope(p, x[:, 0], step))[:, None], step)
            x = mean + std * p.noise(i, step, x[:, 0], 1)
            yield Step.unscored(i, step.timestep, B)
        view = look(p, x, None)
        images, rewards, x0 = (torch.cat([ours, theirs], dim=1) for ours, theirs in zip(
            (view.images, view.rewards, view.x0), (ahead.images, ahead.rewards, ahead.x0), strict=True
        ))  # fmt: skip
        best = rewards.argmax(1)
        kept = torch.cat([initial, starts.to(initial)], dim=1)[torch.arange(B), best.to(initial.device)]
        return Outcome(images, rewards, best, kept, latents=x0)

    def _shift(self, x0: Tensor, samples: Tensor, logits: Tensor, step: NoiseStep) -> Tensor:
        """Return γ·Σ_j (v_j − u_j)·x_j, (B, C, h, w), for clean estimates x0 and samples (B, N, C, h, w)."""
        distance = (samples - x0[:, None]).flatten(2).square().sum(2)
        likelihood = -step.alpha_bar / (2 * (1 - step.alpha_bar)) * distance
        change = (likelihood + logits).softmax(1) - likelihood.softmax(1)
        return self.strength * torch.einsum("bn,bn...->b...", change, samples)


def _own_starts(p: Problem, count: int) -> Tensor:
    """Return initial latents of the lookahead samples, (B, N, C, h, w), which the run itself does not start from."""
    seeds = [randomness.generator(seed, "lookahead").initial_seed() for seed in p.seeds]
    return randomness.initial_latents(p.model, seeds, count, p.config.num_inference_steps).to(p.latents)


def _slope(p: Problem, x: Tensor, step: NoiseStep) -> Tensor:
    """Return the derivative of x̂0 by the prediction, which is one number for each step of a model."""
    ones = torch.ones_like(x)
    return p.model.predict_x0(x, ones, step) - p.model.predict_x0(x, torch.zeros_like(x), step)
