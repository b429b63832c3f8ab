"""A few normalised steps of the prompt's embedding along the reward's gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import free, squared_norm, take, transform
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import both_predicted, clean_latents, look, predicted
from nulltta.baselines.particles import require_gradient
from nulltta.config import number
from nulltta.contracts import Embedding, NoiseStep, Outcome, Step, Stream
from nulltta.errors import InvalidValue, RewardError
from nulltta.scoring import require_graph, require_slope, score_latents


@dataclass(frozen=True, kw_only=True)
class DATE:
    """Move the prompt's embedding by one normalised gradient step at some of the denoising steps (arXiv 2510.23974).

        c ← c + ρ·g/‖g‖,  g = ∇_c r(D(x̂0(x_t, c)))

    The moved embedding stays in use until the end. The updates are spread evenly over the denoising steps, beginning
    with the first. The form of the update, ρ·g/‖g‖ at a tenth of the steps, is that of a summary of the paper; which
    steps the paper updates, its ρ, and whether ‖g‖ is taken over all tokens as here were not verified.

    Cost per prompt with m updates: m denoiser branches with gradient and 2T without, of which m are those under the
    moved embedding; m decodings and scores with gradient, 1 without.

    Attributes:
        length: ρ, the length of a step in the embedding's own unit.
        share: the share of the denoising steps that update the embedding, above 0 and at most 1.
    """

    length: float = 1.0
    share: float = 0.1

    def __post_init__(self) -> None:
        number(self, "length")
        number(self, "share", positive=True)
        if self.share > 1:
            raise InvalidValue(f"must be at most 1, not {self.share:g}", "share")

    def updates(self, T: int) -> list[int]:
        """Return the numbers of the denoising steps that update the embedding."""
        count = math.ceil(self.share * T)
        return [i * T // count for i in range(count)]

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, B, steps = problem, len(problem.prompts), problem.schedule()
        require_gradient(p)
        if p.model.predicts_guided:
            raise InvalidValue("must be cfg for this method: it moves the prompt's own branch", "guidance")
        x, updates = p.latents[:, 0], set(self.updates(len(steps)))
        for i, step in enumerate(steps):
            inner = torch.empty(0, B)
            if i in updates:
                eps_null, rewards, gradient = _ascent_direction(p, x, step)
                if i == 0:
                    require_slope(p.reward, _norm(gradient))
                p = replace(p, cond=_moved(p.cond, gradient, self.length))
                eps_cond, inner = predicted(p.model, p.memory, x, step, p.cond), rewards[None]
            else:
                eps_null, eps_cond = both_predicted(p, x, step)
            mean, std = p.model.step_distribution(x, p.model.guide(eps_null, eps_cond, p.config.guidance_scale), step)
            x = mean + std * p.noise(i, step, x, 1)[:, 0]
            yield replace(Step.unscored(i, step.timestep, B), inner_rewards=inner)
        view = look(p, x[:, None], None)
        first = torch.zeros(B, dtype=torch.long)
        return Outcome(view.images, view.rewards, first, p.latents[:, 0], latents=view.x0)


def _ascent_direction(p: Problem, x: Tensor, step: NoiseStep) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return ε(x, φ), the rewards (B,) of the clean estimates of x (B, C, h, w), and their gradient by c."""

    def of(rows: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        cond = take(p.cond, rows)
        leaf = transform(free(cond), lambda tensor: tensor.detach().requires_grad_())
        eps_null = p.model.predict(x[rows], step, take(p.null, rows))
        with torch.enable_grad():
            eps_cond = p.model.predict(x[rows], step, {**cond, **leaf})
            clean = clean_latents(p, x[rows], step, eps_null, eps_cond)
            rewards = score_latents(p.reward, clean, [p.prompts[row] for row in rows.tolist()])
            require_graph(p.reward, rewards)
            gradient = torch.autograd.grad(rewards.sum(), list(leaf.values()))
        return eps_null, rewards.detach().cpu(), dict(zip(leaf, gradient, strict=True))

    eps_null, rewards, gradients = zip(*p.gradient_memory.map(of, len(x)), strict=True)
    gradient = {name: torch.cat([part[name] for part in gradients]) for name in gradients[0]}
    if not all(bool(g.isfinite().all()) for g in gradient.values()):
        raise RewardError(f"the gradient of reward '{p.reward.name}' is not finite: run the model in float32")
    return torch.cat(eps_null), torch.cat(rewards), gradient


def _norm(gradient: Embedding) -> Tensor:
    """Return the norm of each prompt's gradient over all tensors: (B,)."""
    return torch.stack([squared_norm(g) for g in gradient.values()]).sum(0).sqrt()


def _moved(cond: Embedding, gradient: Embedding, length: float) -> dict[str, Tensor]:
    """Return c + ρ·g/‖g‖; a prompt without gradient keeps its c."""
    factor = length / _norm(gradient).clamp(min=1e-20)
    return {**cond, **{name: cond[name] + factor.view(-1, *[1] * (g.dim() - 1)) * g for name, g in gradient.items()}}
