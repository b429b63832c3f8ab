"""Latents and what is seen through them: what every rival that samples step by step is made of.

N counts the samples or particles of one prompt; all B·N go through the networks together, as many as fit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.embeddings import take
from nulltta.algorithm.objective import predict_branches
from nulltta.algorithm.problem import Problem
from nulltta.contracts import NoiseStep
from nulltta.errors import InvalidValue
from nulltta.scoring import require_differentiable, require_graph, score


class View(NamedTuple):
    """Latents seen through their clean estimates x̂0, or, after the last step, as they are."""

    eps: Tensor  # (B, N, C, h, w), ε̃(x_t); after the last step x itself
    images: Tensor  # (B, N, 3, H, W), D(x̂0)
    rewards: Tensor  # (B, N), r(D(x̂0)), on the CPU
    slope: Tensor  # (B, N, C, h, w), ∇_x r(D(x̂0(x))); zero unless asked for


def require_gradient(p: Problem) -> None:
    """Refuse a reward without gradient, a model in float16, and what `refuse_guard` does."""
    require_differentiable(p.reward, "this method needs one; null-tta, best-of-n and fk do without")
    if p.model.dtype == torch.float16:
        raise InvalidValue("this method's gradients underflow in float16: load the model in bfloat16 or float32")
    refuse_guard(p)


def refuse_guard(p: Problem) -> None:
    """A guard freezes a null text; it must not be thought to watch where there is none."""
    if p.guard is not None:
        raise InvalidValue("a guard watches over a null text, and this method learns none: leave it out")


def initial_latents(p: Problem, count: int) -> Tensor:
    """(B, N, C, h, w): the problem's x_T, and as many more of each seed's as it takes."""
    given = p.latents[:, :count]
    more = randomness.initial_latents(p.model, p.seeds, count)[:, given.shape[1] :]
    return torch.cat([given, more.to(given)], dim=1)


def predict(p: Problem, x: Tensor, step: NoiseStep) -> Tensor:
    """ε̃(x_t), (B, N, C, h, w)."""
    B, N = x.shape[:2]
    flat = x.flatten(0, 1)
    return torch.cat(p.memory.map(lambda rows: guided(p, flat[rows], step, rows // N), B * N)).view_as(x)


def look(p: Problem, x: Tensor, step: NoiseStep | None, *, gradient: bool = False) -> View:
    """Score x (B, N, C, h, w) by its clean estimates at `step`; None: the latents are clean.

    Raises:
        NullTTAError: the reward, or its gradient where that is asked for, is not finite or does not exist.
    """
    B, N = x.shape[:2]
    flat = x.flatten(0, 1)

    def seen(rows: Tensor) -> View:
        owners = rows // N
        with torch.set_grad_enabled(gradient):
            x = flat[rows].detach().requires_grad_(gradient)
            eps = x if step is None else guided(p, x, step, owners)
            images = p.model.decode(x if step is None else p.model.predict_x0(x, eps, step))
            rewards = score(p.reward, images, [p.prompts[owner] for owner in owners.tolist()])
            slope = reward_gradient(p, rewards, x) if gradient else torch.zeros_like(x)
        return View(eps.detach(), images.detach(), rewards.detach().cpu(), slope)

    columns = map(torch.cat, zip(*p.memory.map(seen, B * N), strict=True))
    return View(*(column.view(B, N, *column.shape[1:]) for column in columns))


def move(p: Problem, x: Tensor, eps: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
    """The stochastic step of x (B, N, C, h, w) under ε̃: the mean of x_{t−1}, same shape, and its deviation."""
    mean, std = p.model.step_distribution(x.flatten(0, 1), eps.flatten(0, 1), step)
    return mean.view_as(x), std


def guided(p: Problem, x: Tensor, step: NoiseStep, owners: Tensor) -> Tensor:
    """ε̃(x_t) of latents (n, C, h, w) of the prompts `owners` (n,), with gradient where x has one."""
    eps_null, eps_cond = predict_branches(p.model, x, step, take(p.null, owners), take(p.cond, owners))
    return p.model.guide(eps_null, eps_cond, p.config.guidance_scale)


def reward_gradient(p: Problem, rewards: Tensor, of: Tensor) -> Tensor:
    """∇r of rewards (n,) with respect to `of` (n, ...): the rows are independent, so one backward serves all."""
    require_graph(p.reward, rewards)
    (gradient,) = torch.autograd.grad(rewards.sum(), of)
    if not bool(gradient.isfinite().all()):
        raise InvalidValue(f"the gradient of reward '{p.reward.name}' is not finite: run the model in float32")
    return gradient
