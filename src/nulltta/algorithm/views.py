"""Noisy latents seen through their clean estimates: what they would look like, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import take
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import predict_branches
from nulltta.algorithm.problem import Problem
from nulltta.contracts import CleanLatents, Embedding, GuidedModel, NoiseStep
from nulltta.errors import InvalidValue, RewardError
from nulltta.scoring import pick, require_differentiable, require_graph, score_latents

GradientAt: TypeAlias = Literal["latents", "estimates"]
"""What a reward's gradient is taken with respect to: the latents x_t, or their clean estimates x̂0, which spares the
pass back through the denoiser."""


class View(NamedTuple):
    """N latents per prompt at one noise level and their clean estimates x̂0; after the last step, x̂0 = x.

    Attributes:
        eps_null: (B, N, C, h, w), ε(x, φ'); x itself after the last step, as `eps_cond`.
        eps_cond: (B, N, C, h, w), ε(x, c).
        x0: (B, N, C, h, w), x̂0.
        images: (B, N, 3, H, W), D(x̂0); (B, N, 0) where the reward did not need them and the latents are noisy.
        rewards: (B, N), r(D(x̂0)), on the CPU.
        slope: (B, N, C, h, w), ∇_x r(D(x̂0(x))) or ∇_{x̂0} r(D(x̂0)); zero unless it was asked for.
    """

    eps_null: Tensor
    eps_cond: Tensor
    x0: Tensor
    images: Tensor
    rewards: Tensor
    slope: Tensor


def look(
    p: Problem,
    x: Tensor,
    step: NoiseStep | None,
    null: Embedding | None = None,
    *,
    gradient_at: GradientAt | None = None,
    allow_nan: bool = False,
) -> View:
    """Score latents by their clean estimates, as many at once as fit into memory.

    Args:
        p: the problem.
        x: (B, N, C, h, w).
        step: their noise level; None if they are clean.
        null: φ'; by default φ.
        gradient_at: also compute `slope`, with respect to x ("latents") or to x̂0 ("estimates").
        allow_nan: accept rewards that are not finite.

    Raises:
        RewardError: if the reward fails, or it or its gradient is not finite.
    """
    B, N = x.shape[:2]
    flat, phi = x.flatten(0, 1), p.null if null is None else null

    def view(rows: Tensor) -> View:
        owners = rows // N
        with torch.set_grad_enabled(gradient_at == "latents"):
            x = flat[rows].detach().requires_grad_(gradient_at == "latents")
            eps_null = eps_cond = x
            if step is not None:
                eps_null, eps_cond = predict_branches(p.model, x, step, take(phi, owners), take(p.cond, owners))
            clean = clean_latents(p, x, step, eps_null, eps_cond)
        if gradient_at == "estimates":
            clean = replace(clean, x0=clean.x0.detach().requires_grad_())
        with torch.set_grad_enabled(gradient_at is not None):
            prompts = [p.prompts[owner] for owner in owners.tolist()]
            rewards = score_latents(p.reward, clean, prompts, allow_nan=allow_nan)
            images = clean.images if clean.decoded or step is None else torch.empty(len(x), 0)
            source = x if gradient_at == "latents" else clean.x0
            slope = reward_gradient(p, rewards, source) if gradient_at else torch.zeros_like(x)
        rest = clean.x0.detach(), images.detach(), rewards.detach().cpu(), slope
        return View(eps_null.detach(), eps_cond.detach(), *rest)

    memory = p.memory if gradient_at is None else p.gradient_memory
    columns = map(torch.cat, zip(*memory.map(view, B * N), strict=True))
    return View(*(column.view(B, N, *column.shape[1:]) for column in columns))


def predicted(model: GuidedModel, memory: MicroBatch, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
    """Evaluate one branch at latents (B, C, h, w), one per prompt, as many at once as fit into memory."""
    return torch.cat(memory.map(lambda rows: model.predict(x[rows], step, take(embedding, rows)), len(x)))


def both_predicted(p: Problem, x: Tensor, step: NoiseStep, null: Embedding | None = None) -> tuple[Tensor, Tensor]:
    """Return (ε(x, φ'), ε(x, c)) of latents (B, C, h, w), one per prompt, as many at once as fit into memory.

    φ' is φ unless it is given.
    """
    phi = p.null if null is None else null

    def both(rows: Tensor) -> tuple[Tensor, Tensor]:
        return predict_branches(p.model, x[rows], step, take(phi, rows), take(p.cond, rows))

    eps_null, eps_cond = map(torch.cat, zip(*p.memory.map(both, len(x)), strict=True))
    return eps_null, eps_cond


@torch.no_grad()
def decoded(model: GuidedModel, memory: MicroBatch, x0: Tensor) -> Tensor:
    """Decode clean latents (n, C, h, w), as many at once as fit into memory."""
    return torch.cat(memory.map(lambda rows: model.decode(x0[rows]), len(x0)))


def clean_latents(p: Problem, x: Tensor, step: NoiseStep | None, eps_null: Tensor, eps_cond: Tensor) -> CleanLatents:
    """Return the clean estimates of latents x (n, C, h, w) with the branches' predictions; x itself if it is clean."""
    if step is not None:
        x = p.model.predict_x0(x, p.model.guide(eps_null, eps_cond, p.config.guidance_scale), step)
    return CleanLatents(x, step, p.model.decode)


def require_gradient(p: Problem, instead: str, detail: str = "full") -> None:
    """Check that the reward's gradient can be taken with respect to latents, without loss scaling.

    Args:
        p: the problem.
        instead: what the caller can do without a gradient, for the message.
        detail: the decoder that the gradient goes through: "full", the model's own, or "tiny".

    Raises:
        InvalidValue: if the reward or the decoder has no gradient, or the model computes in float16.
    """
    require_differentiable(p.reward, instead)
    if p.model.dtype == torch.float16:
        raise InvalidValue(f"gradients underflow in float16: load the model in bfloat16 or float32, or {instead}")
    if detail == "full" and not (p.model.differentiable or p.reward.reads_latents):
        raise InvalidValue(f"images that this model decodes carry no gradient: {instead}")


def clean_slope(p: Problem, x: Tensor, step: NoiseStep, eps_null: Tensor, eps_cond: Tensor) -> Tensor:
    """Return ∇_{x̂0} r(D(x̂0)) at latents (B, C, h, w), one per prompt.

    It goes through the decoder of the inner steps and the reward, and not through the denoiser.

    Raises:
        RewardError: if the reward fails, or it or its gradient is not finite.
    """

    def of(rows: Tensor) -> Tensor:
        x0 = clean_latents(p, x[rows], step, eps_null[rows], eps_cond[rows]).x0.detach()
        with torch.enable_grad():
            clean = CleanLatents(x0.requires_grad_(), step, partial(p.model.decode, detail=p.config.inner_decoder))
            rewards = score_latents(p.reward, clean, [p.prompts[row] for row in rows.tolist()])
            return reward_gradient(p, rewards, x0)

    return torch.cat(p.gradient_memory.map(of, len(x)))


def preview(p: Problem, view: View, selected: Tensor) -> Callable[[], Tensor]:
    """Return a function that returns the clean images of the latents with numbers `selected` (B,): (B, 3, H, W)."""
    if view.images.numel():
        return partial(pick, view.images, selected.to(view.images.device))
    return partial(decoded, p.model, p.memory, pick(view.x0, selected.to(view.x0.device)))


def reward_gradient(p: Problem, rewards: Tensor, of: Tensor) -> Tensor:
    """Return ∇r of rewards (n,) with respect to `of` (n, ...).

    The rows are independent, so one backward pass serves all of them.

    Raises:
        RewardError: if the rewards have no gradient, or it is not finite.
    """
    require_graph(p.reward, rewards)
    (gradient,) = torch.autograd.grad(rewards.sum(), of)
    if not bool(gradient.isfinite().all()):
        raise RewardError(f"the gradient of reward '{p.reward.name}' is not finite: run the model in float32")
    return gradient
