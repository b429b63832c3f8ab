"""Moving several samples per prompt step by step, and the checks that methods without a null text share.

N counts the samples or particles of one prompt; all B·N go through the networks together, as many as fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from nulltta.algorithm import randomness, views
from nulltta.algorithm.embeddings import take
from nulltta.algorithm.objective import predict_branches
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import GradientAt, View, look, preview
from nulltta.config import NullTTAConfig
from nulltta.contracts import NoiseStep, Outcome, Step, Stream
from nulltta.errors import InvalidValue
from nulltta.scoring import require_slope


def require_gradient(p: Problem) -> None:
    """Check that a gradient can be taken through the model and the reward, and that nothing concerns a null text.

    Raises:
        InvalidValue: if the reward or the decoder has no gradient, the model computes in float16, or a setting
            concerns a null text.
    """
    views.require_gradient(p, "choose a method that needs none: null-tta, best-of-n, fk or lidar (method)")
    refuse_null_text_settings(p.config)


def refuse_null_text_settings(config: NullTTAConfig) -> None:
    """Check that there is neither a `kl_target` nor a `noise_tilt`, which belong to the method that learns a null text.

    Raises:
        InvalidValue: if there is one.
    """
    if config.noise_tilt:
        raise InvalidValue(
            "tilts the noise of null-tta's steps: set it to 0 (the methods noise-tilt and clean-tilt have a strength "
            "of their own)",
            "noise_tilt",
        )
    if config.kl_target is not None:
        raise InvalidValue("bounds what a null text does, and this method learns none: leave it out", "kl_target")


def initial_latents(p: Problem, count: int) -> Tensor:
    """Return the problem's x_T and as many more of each seed's as it takes, (B, N, C, h, w)."""
    given = p.latents[:, :count]
    more = randomness.initial_latents(p.model, p.seeds, count, p.config.num_inference_steps)[:, given.shape[1] :]
    return torch.cat([given, more.to(given)], dim=1)


def guided(p: Problem, x: Tensor, step: NoiseStep, owners: Tensor) -> Tensor:
    """Return ε̃(x_t) of latents (n, C, h, w) of the prompts with numbers `owners` (n,), differentiable in x."""
    eps_null, eps_cond = predict_branches(p.model, x, step, take(p.null, owners), take(p.cond, owners))
    return p.model.guide(eps_null, eps_cond, p.config.guidance_scale)


def predict(p: Problem, x: Tensor, step: NoiseStep) -> Tensor:
    """Return ε̃(x_t) of latents (B, N, C, h, w), same shape."""
    B, N = x.shape[:2]
    flat = x.flatten(0, 1)
    return torch.cat(p.memory.map(lambda rows: guided(p, flat[rows], step, rows // N), B * N)).view_as(x)


def guided_view(p: Problem, view: View) -> Tensor:
    """Return ε̃(x_t) of latents that were looked at, (B, N, C, h, w)."""
    eps_null, eps_cond = view.eps_null.flatten(0, 1), view.eps_cond.flatten(0, 1)
    return p.model.guide(eps_null, eps_cond, p.config.guidance_scale).view_as(view.eps_null)


def move(p: Problem, x: Tensor, eps: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
    """Return the mean of x_{t−1}, (B, N, C, h, w), and its standard deviation for x and ε̃ of the same shape."""
    mean, std = p.model.step_distribution(x.flatten(0, 1), eps.flatten(0, 1), step)
    return mean.view_as(x), std


@torch.no_grad()
def along_slope(
    p: Problem, advance: Callable[[Tensor, float, Tensor, Tensor], Tensor], gradient_at: GradientAt = "latents"
) -> Stream:
    """Sample one latent per prompt, with the reward's gradient at hand in each step.

    Args:
        p: the problem.
        advance: maps the step's mean and standard deviation, its noise and that gradient to x_{t−1}; tensors are
            (B, 1, C, h, w).
        gradient_at: whether the gradient is ∇_{x_t} r(D(x̂0(x_t))) or ∇_{x̂0} r(D(x̂0)).
    """
    B = len(p.prompts)
    require_gradient(p)
    x = initial = p.latents[:, :1]
    first = torch.zeros(B, dtype=torch.long)
    for i, step in enumerate(p.schedule()):
        view = look(p, x, step, gradient_at=gradient_at)
        if i == 0:
            require_slope(p.reward, view.slope)
        mean, std = move(p, x, guided_view(p, view), step)
        x = advance(mean, std, p.noise(i, step, x[:, 0], 1), view.slope)
        yield replace(Step.unscored(i, step.timestep, B, preview(p, view, first)), inner_rewards=view.rewards.T)
    view = look(p, x, None)
    return Outcome(view.images, view.rewards, first, initial[:, 0], latents=view.x0)
