"""The objective of one denoising step (Null-TTA, arXiv 2511.20889, eq. for J; METHOD step 2b).

J(φ') = λ1·R(D(x̂0(x_t, φ'))) − a_i·λ2·KL(φ') − a_i·λ2/(2σφ²)·‖φ' − φ‖²,
KL(φ') = (1−α_t)/(2α_t(1−ᾱ_t))·‖ε̃(x_t, φ') − ε̃(x_t, φ)‖² by the paper, and the Gaussians' own by "exact".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import distance, squared_norm, take
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel, NoiseStep, Reward
from nulltta.scoring import require_graph, score


def predict_branches(
    model: GuidedModel, x: Tensor, step: NoiseStep, null: Embedding, cond: Embedding
) -> tuple[Tensor, Tensor]:
    """(ε(x, φ), ε(x, c)): in one call of the denoiser, where the two embeddings' shapes allow it."""
    if any(null[name].shape != cond[name].shape for name in null):
        return model.predict(x, step, null), model.predict(x, step, cond)
    joint = {name: torch.cat([null[name], cond[name]]) for name in null}
    eps_null, eps_cond = model.predict(torch.cat([x, x]), step, joint).chunk(2)
    return eps_null, eps_cond


class Terms(NamedTuple):
    """The objective and its parts, each (B,)."""

    value: Tensor  # J
    reward: Tensor  # R
    kl: Tensor  # the consistency term, before a_i·λ2


@dataclass(frozen=True, slots=True)
class Objective:
    """J at one denoising step, a function of φ' alone: everything else was evaluated once, without gradient.

    Attributes:
        x: (B, C, h, w), x_t.
        eps_cond: ε(x_t, c).
        eps_null: ε(x_t, φ), with the null embedding as encoded.
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
    null: Embedding  # φ
    anneal: float

    def __call__(self, null: Embedding) -> Terms:
        """J(φ') for the B prompts; differentiates one branch of the denoiser, the decoder and the reward.

        Raises:
            NullTTAError: a gradient is wanted and the reward gives none: it must not be optimised as a constant.
        """
        cfg = self.config
        eps = self.model.predict(self.x, self.step, null)  # ε(x_t, φ'), (B, C, h, w)
        guided_eps = self.model.guide(eps, self.eps_cond, cfg.guidance_scale)  # ε̃(x_t, φ')
        images = self.model.decode(self.model.predict_x0(self.x, guided_eps, self.step), cfg.inner_decoder)
        rewards = score(self.reward, images, self.prompts, allow_nan=cfg.conventions == "release")
        if images.requires_grad and not bool(rewards.isnan().any()):
            require_graph(self.reward, rewards)
        kl = self.kl(eps)
        prior = distance(null, self.null) / (2 * cfg.prior_variance)
        held = {"both": kl + prior, "consistency": kl, "prior": prior}[cfg.regularisers]
        value = cfg.reward_weight * _finite(rewards) - self.anneal * cfg.kl_weight * held
        return Terms(value, rewards, kl)

    def at(self, rows: Tensor) -> Objective:
        """J of the prompts of these numbers, rows (N,), which may repeat: of φ' with first dimension N."""
        x, cond, eps_null, null = self.x[rows], self.eps_cond[rows], self.eps_null[rows], take(self.null, rows)
        prompts = [self.prompts[row] for row in rows.tolist()]
        return replace(self, prompts=prompts, x=x, eps_cond=cond, eps_null=eps_null, null=null)

    def kl(self, eps: Tensor) -> Tensor:
        """How far ε(x_t, φ') moves the step's distribution from that of ε(x_t, φ), (B,) in nats.

        Under plain guidance ‖ε̃(φ') − ε̃(φ)‖² = (s−1)²·‖ε(φ') − ε(φ)‖²; the published release has s² there.
        """
        s = self.config.guidance_scale
        if self.config.conventions == "release":
            return s**2 * self.step.consistency * squared_norm(eps - self.eps_null)
        moved, held = (self.model.guide(null, self.eps_cond, s) for null in (eps, self.eps_null))
        if self.config.conventions == "exact":
            return self._gaussian_kl(moved, held)
        return self.step.consistency * squared_norm(moved - held)

    def _gaussian_kl(self, moved: Tensor, held: Tensor) -> Tensor:
        """KL(N(m(ε̃(φ')), σ²I) ‖ N(m(ε̃(φ)), σ²I)) = ‖m' − m‖²/(2σ²); a deterministic step has none: 0."""
        mean, std = self.model.step_distribution(self.x, moved, self.step)
        reference, _ = self.model.step_distribution(self.x, held, self.step)
        return squared_norm(mean - reference) / (2 * std**2) if std > 0 else torch.zeros(len(mean)).to(mean)


def _finite(rewards: Tensor) -> Tensor:
    """NaN as 0, without gradient: the release's inner loop. Elsewhere `score` has refused NaN already."""
    return torch.where(torch.isnan(rewards), torch.zeros_like(rewards), rewards)
