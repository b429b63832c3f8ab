"""The objective of one denoising step (Null-TTA, arXiv 2511.20889; docs/method.md, step 2b).

    J(φ') = λ1·R(D(x̂0(x_t, φ'))) − a_i·λ2·KL(φ') − a_i·λ2/(2σφ²)·‖φ' − φ‖²

KL(φ') is (1−α_t)/(2α_t(1−ᾱ_t))·‖ε̃(x_t, φ') − ε̃(x_t, φ)‖² in the paper, and the divergence of the sampler's own
Gaussian steps under the conventions "exact".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import distance, squared_norm, take
from nulltta.config import NullTTAConfig
from nulltta.contracts import CleanLatents, Embedding, GuidedModel, NoiseStep, Reward
from nulltta.scoring import require_graph, score_latents


def predict_branches(
    model: GuidedModel, x: Tensor, step: NoiseStep, null: Embedding, cond: Embedding
) -> tuple[Tensor, Tensor]:
    """Return (ε(x, φ), ε(x, c)), from one call of the denoiser if the two embeddings' shapes allow it.

    Of a model whose predictions are guided already, which makes no use of the second, both are the first.
    """
    if model.predicts_guided:
        eps = model.predict(x, step, null)
        return eps, eps
    if any(null[name].shape != cond[name].shape for name in null):
        return model.predict(x, step, null), model.predict(x, step, cond)
    joint = {name: torch.cat([null[name], cond[name]]) for name in null}
    eps_null, eps_cond = model.predict(torch.cat([x, x]), step, joint).chunk(2)
    return eps_null, eps_cond


class Terms(NamedTuple):
    """The objective and its parts, each (B,).

    Attributes:
        value: J.
        reward: R.
        kl: the consistency term, without a_i·λ2.
    """

    value: Tensor
    reward: Tensor
    kl: Tensor


@dataclass(frozen=True, slots=True)
class Objective:
    """J at one denoising step as a function of φ' alone: everything else was evaluated once, without gradient.

    Attributes:
        model: the model.
        reward: R.
        prompts: the B prompts.
        config: the settings.
        step: the noise level.
        x: (B, C, h, w), x_t.
        eps_cond: ε(x_t, c).
        eps_null: ε(x_t, φ), with the null embedding as encoded.
        null: φ.
        anneal: a_i.
    """

    model: GuidedModel
    reward: Reward
    prompts: Sequence[str]
    config: NullTTAConfig
    step: NoiseStep
    x: Tensor
    eps_cond: Tensor
    eps_null: Tensor
    null: Embedding
    anneal: float

    def __call__(self, null: Embedding) -> Terms:
        """Return J(φ') of the B prompts; its gradient goes through one branch of the denoiser, the decoder and R.

        A reward that reads latents needs no decoder.

        Raises:
            RewardError: if the reward fails, or gives no gradient although one is needed.
        """
        cfg = self.config
        eps = self.model.predict(self.x, self.step, null)  # ε(x_t, φ'), (B, C, h, w)
        guided_eps = self.model.guide(eps, self.eps_cond, cfg.guidance_scale)  # ε̃(x_t, φ')
        x0 = self.model.predict_x0(self.x, guided_eps, self.step)
        clean = CleanLatents(x0, self.step, partial(self.model.decode, detail=cfg.inner_decoder))
        rewards = score_latents(self.reward, clean, self.prompts, allow_nan=cfg.conventions == "release")
        if x0.requires_grad and not bool(rewards.isnan().any()):
            require_graph(self.reward, rewards)
        kl = self.kl(eps)
        prior = distance(null, self.null) / (2 * cfg.prior_variance)
        reward_weight, *lambda2 = cfg.weights
        kl_weight, prior_weight = (self.anneal * weight for weight in lambda2)
        held = kl_weight * (kl + prior) if kl_weight == prior_weight else kl_weight * kl + prior_weight * prior
        value = reward_weight * _nan_to_zero(rewards) - held
        return Terms(value, rewards, kl)

    def at(self, rows: Tensor) -> Objective:
        """Return J of the prompts with numbers `rows` (N,), which may repeat, for φ' with first dimension N."""
        x, cond, eps_null, null = self.x[rows], self.eps_cond[rows], self.eps_null[rows], take(self.null, rows)
        prompts = [self.prompts[row] for row in rows.tolist()]
        return replace(self, prompts=prompts, x=x, eps_cond=cond, eps_null=eps_null, null=null)

    def kl(self, eps: Tensor) -> Tensor:
        """Return how far ε(x_t, φ') moves the step's distribution from that of ε(x_t, φ), (B,) in nats.

        Under classifier-free guidance ‖ε̃(φ') − ε̃(φ)‖² = (s−1)²·‖ε(φ') − ε(φ)‖²; the published release has s² there.
        """
        s = self.config.guidance_scale
        if self.config.conventions == "release":
            return s**2 * self.step.consistency * squared_norm(eps - self.eps_null)
        moved, held = (self.model.guide(null, self.eps_cond, s) for null in (eps, self.eps_null))
        if self.config.conventions == "exact":
            return self._gaussian_kl(moved, held)
        return self.step.consistency * squared_norm(moved - held)

    def divergence(self, eps: Tensor) -> Tensor:
        """Return the exact KL divergence of the step under ε(x_t, φ') from that under ε(x_t, φ), (B,) in nats.

        A step without noise, as the last one often is, has no density. There the divergence is that of DDPM's step of
        variance β_t = 1 − ᾱ_t/ᾱ_{t−1} (Ho et al., 2020, sec. 3.2), which in terms of the clean estimates is
        (ᾱ_{t−1} − ᾱ_t)/(2(1 − ᾱ_t)²)·‖x̂0(φ') − x̂0(φ)‖².
        """
        s, step = self.config.guidance_scale, self.step
        moved, held = (self.model.guide(null, self.eps_cond, s) for null in (eps, self.eps_null))
        if self.model.step_distribution(self.x, moved, step)[1] > 0:
            return self._gaussian_kl(moved, held)
        shift = self.model.predict_x0(self.x, moved, step) - self.model.predict_x0(self.x, held, step)
        signal = step.alpha_bar_previous - step.alpha_bar
        return signal / (2 * (1 - step.alpha_bar) ** 2) * squared_norm(shift)

    def _gaussian_kl(self, moved: Tensor, held: Tensor) -> Tensor:
        """Return KL(N(m(ε̃(φ')), σ²I) ‖ N(m(ε̃(φ)), σ²I)) = ‖m' − m‖²/(2σ²); 0 for a deterministic step."""
        mean, std = self.model.step_distribution(self.x, moved, self.step)
        reference, _ = self.model.step_distribution(self.x, held, self.step)
        return squared_norm(mean - reference) / (2 * std**2) if std > 0 else torch.zeros(len(mean)).to(mean)


def _nan_to_zero(rewards: Tensor) -> Tensor:
    """Count NaN as 0, without gradient, as the release does; under other conventions `score` has refused NaN."""
    return torch.where(torch.isnan(rewards), torch.zeros_like(rewards), rewards)
