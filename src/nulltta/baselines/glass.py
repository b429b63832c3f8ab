"""Transitions of a sampler that are sampled by a flow of their own (GLASS, arXiv 2509.25170).

A sampler draws x_s from one Gaussian about one clean estimate of x_t. The model's own p(x_s | x_t) has another shape,
because x_t leaves x0 open, and few long steps show it. An ODE samples it, with the denoiser as it is: given x0, x_s is
as informative as x_t together with u = x0 + τ·n, n ~ N(0, I), where 1/τ² = λ_s − λ_t and λ = α²/σ². So the denoiser's
estimate at the latent that x_t and u make up is E[x0 | x_t, u], and

    du/dτ = (u − E[x0 | x_t, u])/τ,  from τ = ∞, where (u − E[x0 | x_t])/τ = n,

is the flow whose u has the distribution that it has given x_t. Few steps of Euler's method fall short of its variance,
by as much as the same number of the sampler's own steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.baselines.particles import predict
from nulltta.contracts import NoiseStep


@torch.no_grad()
def transition(p: Problem, x: Tensor, eps: Tensor, steps: Sequence[NoiseStep], noise: Tensor) -> Tensor:
    """Sample the ancestral transition over several denoising steps by Euler's method, one evaluation per step.

    One step is the sampler's own step at η = 1.

    Args:
        p: the problem.
        x: (B, N, C, h, w), at the level of the first step.
        eps: ε̃(x), same shape.
        steps: M consecutive denoising steps.
        noise: n, standard normal, same shape.

    Returns:
        The latents to which the last step leads, same shape.
    """
    first = steps[0]
    ratio = first.alpha_bar / (1 - first.alpha_bar)  # λ_t
    known = math.sqrt(first.alpha_bar) / (1 - first.alpha_bar) / first.scale * x  # λ_t·(x_t/α_t)
    clean, direction = _clean(p, x, eps, first), noise
    for step, following in zip_longest(steps, steps[1:]):
        share, rest = step.alpha_bar_previous, 1 - step.alpha_bar_previous  # λ_s = share/rest
        tau = math.sqrt(rest / (share - ratio * rest))
        u = clean + tau * direction
        x = step.scale_next * math.sqrt(share) * (rest / share * known + (1 - ratio * rest / share) * u)
        if following is not None:
            clean = _clean(p, x, predict(p, x, following), following)
            direction = (u - clean) / tau
    return x


def _clean(p: Problem, x: Tensor, eps: Tensor, step: NoiseStep) -> Tensor:
    """Return x̂0 of latents (B, N, C, h, w)."""
    return p.model.predict_x0(x.flatten(0, 1), eps.flatten(0, 1), step).view_as(x)
