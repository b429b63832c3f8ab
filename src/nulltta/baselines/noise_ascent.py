"""Gradient ascent of the reward over the sampler's noises, through the whole sampling run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import reward_gradient
from nulltta.baselines.particles import guided, require_gradient
from nulltta.contracts import CleanLatents, NoiseStep, Outcome, Step, Stream
from nulltta.scoring import require_slope, score_latents


@dataclass(eq=False)
class NoiseAscent:
    """Sample, differentiate the reward with respect to the free noises, move them, and repeat.

    Cost per prompt and n iterations: 2T·n denoiser branches with gradient and 2T without; n decodings and scores with
    gradient, 1 without. Where memory does not suffice for the activations of one prompt, a step keeps only its input
    from then on, and each branch with gradient is computed once more in the backward pass.

    Attributes:
        free: (B, F, C, h, w), the first F of x_T, z_1, ..., z_T; the optimiser moves them in place.
        fixed: the other noises, (B, C, h, w) each.
        optimiser: moves `free` along its gradient.
        clip: the largest norm of a prompt's gradient.
        reward_weight: multiplies the reward.
        regulariser: (free, iteration) -> (B,), added to the reward.
        recompute: whether a step keeps only its input; set when memory runs out.
    """

    free: Tensor
    fixed: Sequence[Tensor]
    optimiser: torch.optim.Optimizer
    clip: float
    reward_weight: float = 1.0
    regulariser: Callable[[Tensor, int], Tensor] | None = None
    recompute: bool = False

    def run(self, p: Problem, iterations: int) -> Stream:
        """Yield one `Step` per iteration, with timestep 0, and return the best image of all iterations.

        The noise is moved `iterations` times and scored once more.

        Raises:
            InvalidValue: if no gradient can be taken.
            RewardError: if the reward's gradient does not exist, is zero or is not finite.
        """
        require_gradient(p)
        B, free, memory = len(p.prompts), self.free, MicroBatch(p.memory.rows, lambda: self._relieve(p))
        best_images, best_x0, best = torch.empty(0), torch.empty(0), torch.full((B,), -torch.inf)
        for iteration in range(iterations + 1):
            last = iteration == iterations
            images, x0, rewards, gradient = self._evaluate(p, memory, gradient=not last)
            if iteration == 0:
                best_images, best_x0 = images.clone(), x0.clone()
                if not last:
                    require_slope(p.reward, gradient)
            better = (rewards > best).to(images.device)
            best_images[better], best_x0[better], best = images[better], x0[better], best.maximum(rewards)
            yield replace(Step.unscored(iteration, 0.0, B, images.detach), inner_rewards=rewards[None])
            if not last:
                gradient = self.reward_weight * gradient
                if self.regulariser is not None:
                    gradient = gradient + _gradient(self.regulariser, free, iteration)
                free.grad = clipped(gradient, self.clip)
                self.optimiser.step()
        first = torch.zeros(B, dtype=torch.long)
        return Outcome(best_images[:, None], best[:, None], first, p.latents[:, 0], latents=best_x0[:, None])

    def _relieve(self, p: Problem) -> bool:
        """Save memory by recomputing steps, then by the denoiser's own checkpointing; return whether that is new."""
        if self.recompute:
            return p.model.enable_checkpointing()
        self.recompute = True
        return True

    def _evaluate(self, p: Problem, memory: MicroBatch, *, gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images (B, 3, H, W), their latents, rewards (B,) and the rewards' gradient with respect to the free
        noises (zero unless it was asked for)."""

        def of(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            with torch.set_grad_enabled(gradient):
                leaf = self.free[rows].detach().requires_grad_(gradient)
                x, *noises = [*leaf.unbind(1), *(z[rows] for z in self.fixed)]
                x0 = sample(p, x, noises, rows, recompute=self.recompute)
                clean = CleanLatents(x0, None, p.model.decode)
                rewards = score_latents(p.reward, clean, [p.prompts[row] for row in rows.tolist()])
                slope = reward_gradient(p, rewards, leaf) if gradient else torch.zeros_like(leaf)
            with torch.no_grad():  # decodes here only if the reward reads latents
                return clean.images.detach(), clean.x0.detach(), rewards.detach().cpu(), slope

        images, x0, rewards, slope = map(torch.cat, zip(*memory.map(of, len(self.free)), strict=True))
        return images, x0, rewards, slope


def own_noise(p: Problem) -> list[Tensor]:
    """Return x_T and the T step noises that plain sampling would take, (B, C, h, w) each."""
    x = p.latents[:, 0]
    return [x, *(p.noise(i, step, x, 1)[:, 0] for i, step in enumerate(p.schedule()))]


def sample(p: Problem, x: Tensor, noises: Sequence[Tensor], owners: Tensor, *, recompute: bool = False) -> Tensor:
    """Return x_0 for x_T (n, C, h, w) and T step noises of the prompts with numbers `owners` (n,).

    With `recompute`, each step's activations are computed again in the backward pass instead of being stored.
    """
    for step, z in zip(p.schedule(), noises, strict=True):
        if recompute:
            x = torch.as_tensor(checkpoint(_step, p, step, x, z, owners, use_reentrant=False, preserve_rng_state=False))
        else:
            x = _step(p, step, x, z, owners)
    return x


def clipped(gradient: Tensor, largest: float) -> Tensor:
    """Scale each prompt's gradient, (B, ...), down to a norm of at most `largest`."""
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1).view(-1, *[1] * (gradient.dim() - 1))
    return gradient * (largest / norm.clamp(min=1e-12)).clamp(max=1)


def _step(p: Problem, step: NoiseStep, x: Tensor, z: Tensor, owners: Tensor) -> Tensor:
    mean, std = p.model.step_distribution(x, guided(p, x, step, owners), step)
    return mean + std * z


@torch.enable_grad()
def _gradient(regulariser: Callable[[Tensor, int], Tensor], free: Tensor, iteration: int) -> Tensor:
    leaf = free.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(regulariser(leaf, iteration).sum(), leaf)
    return gradient
