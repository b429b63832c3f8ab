"""Direct noise optimisation: the sampler's own noises are what is optimised, through the whole sampling run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nulltta.algorithm.problem import Problem
from nulltta.baselines.lookahead import guided, require_gradient, reward_gradient
from nulltta.config import number, whole
from nulltta.contracts import NoiseStep, Outcome, Step, Stream
from nulltta.scoring import require_slope, score


@dataclass(frozen=True, kw_only=True)
class DNO:
    """max over z = (x_T, z_1, ..., z_T) of r(D(x_0(z))) + ρ·E_Π[log P(Πz)] (DNO, arXiv 2405.18881).

    AdamW, the gradient of each prompt clipped; one `Step` an iteration, its timestep 0, as each samples to the end.
    The best image of all iterations is returned. Published with T = 50 and η = 1.

    Cost for a prompt: 2T·n denoiser branches with gradient, each computed once more in the backward pass (a step
    keeps its input alone), and 2T without; n decodings and scores with gradient, 1 without.

    Attributes:
        iterations: n; the noise is moved so often, and scored once more.
        learning_rate: of AdamW.
        clip: the largest norm of a prompt's gradient.
        regularisation: ρ, weight of the noise's log-probability; 0 leaves it out.
        permutations: how many Π stand for their expectation.
    """

    iterations: int = 100
    learning_rate: float = 0.01
    clip: float = 1.0
    regularisation: float = 0.0
    permutations: int = 100

    def __post_init__(self) -> None:
        whole(self, "iterations", at_least=0)
        whole(self, "permutations", at_least=1)
        for name in ("learning_rate", "clip", "regularisation"):
            number(self, name)

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        noise = torch.stack(own_noise(problem), dim=1)  # (B, 1 + T, C, h, w)
        optimiser = torch.optim.AdamW([noise], lr=self.learning_rate, maximize=True)

        def regulariser(noise: Tensor, iteration: int) -> Tensor:
            generators = problem.generators(iteration, "permute")
            return self.regularisation * torch.stack(
                [self._log_probability(z, generator) for z, generator in zip(noise.flatten(1), generators, strict=True)]
            )

        return (
            yield from ascend(
                problem, noise, [], optimiser, self.iterations, self.clip,
                regulariser=regulariser if self.regularisation else None,
            )
        )  # fmt: skip

    def _log_probability(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """E_Π[log P(Πz)] of one prompt's noise (D,)."""
        orders = [torch.randperm(len(z), generator=generator).to(z.device) for _ in range(self.permutations)]
        return torch.stack([log_probability(z[order]) for order in orders]).mean()


def log_probability(z: Tensor, k: int = 4) -> Tensor:
    """How probable at most it is that Gaussian noise z (D,) has a mean and covariance as far off as it has.

    Cut into m pieces of k numbers (k = 4 in the release), M1 = ‖mean‖ and M2 = ‖covariance − I‖ in the spectral norm,

        log P = log min(2e^{−m·M1²/(2k)}, 1) + log min(2e^{−m·max(√(1+M2) − 1 − √(k/m), 0)²/2}, 1).
    """
    pieces = z[: len(z) // k * k].view(-1, k)
    m = len(pieces)
    M1 = torch.linalg.vector_norm(pieces.mean(0))
    M2 = torch.linalg.matrix_norm(pieces.T @ pieces / m - torch.eye(k).to(z), ord=2)
    off = ((1 + M2).sqrt() - 1 - math.sqrt(k / m)).clamp(min=0)
    exponents = torch.stack([m * M1.square() / (2 * k), m * off.square() / 2])
    return (math.log(2) - exponents).clamp(max=0).sum()


def own_noise(p: Problem) -> list[Tensor]:
    """(B, C, h, w) each: x_T and the T step noises that plain sampling would take."""
    x = p.latents[:, 0]
    return [x, *(p.noise(i, step, x, 1)[:, 0] for i, step in enumerate(p.schedule()))]


def ascend(
    problem: Problem,
    free: Tensor,
    fixed: Sequence[Tensor],
    optimiser: torch.optim.Optimizer,
    iterations: int,
    clip: float,
    reward_weight: float = 1.0,
    regulariser: Callable[[Tensor, int], Tensor] | None = None,
) -> Stream:
    """Sample, differentiate the reward with respect to the free noises, move them; return the best of all samples.

    free: (B, F, C, h, w), the first F of x_T, z_1, ..., z_T; moved in place by the optimiser.
    fixed: the rest, (B, C, h, w) each.
    regulariser: (free, iteration) -> (B,), added to the reward.
    """
    p, B = problem, len(problem.prompts)
    require_gradient(p)
    zeros = torch.zeros(B)
    best_images, best = torch.empty(0), torch.full((B,), -torch.inf)
    for iteration in range(iterations + 1):
        last = iteration == iterations
        images, rewards, gradient = _evaluate(p, free, fixed, gradient=not last)
        if iteration == 0:
            best_images = images.clone()
            if not last:
                require_slope(p.reward, gradient)
        better = (rewards > best).to(images.device)
        best_images[better], best = images[better], best.maximum(rewards)
        yield Step(iteration, 0.0, rewards[None], torch.empty(B, 0), zeros.long(), zeros, images)
        if not last:
            gradient = reward_weight * gradient
            if regulariser is not None:
                gradient = gradient + _gradient(regulariser, free, iteration)
            free.grad = clipped(gradient, clip)
            optimiser.step()
    return Outcome(best_images[:, None], best[:, None], zeros.long(), p.latents[:, 0])


def sample(p: Problem, x: Tensor, noises: Sequence[Tensor], owners: Tensor) -> Tensor:
    """x_0 of x_T (n, C, h, w) and T step noises, of the prompts `owners` (n,).

    Where it is differentiated, each step's insides are computed again in the backward pass instead of kept.
    """
    for step, z in zip(p.schedule(), noises, strict=True):
        x = torch.as_tensor(checkpoint(_step, p, step, x, z, owners, use_reentrant=False, preserve_rng_state=False))
    return x


def clipped(gradient: Tensor, largest: float) -> Tensor:
    """(B, ...), each prompt's scaled down to a norm of at most `largest`."""
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1).view(-1, *[1] * (gradient.dim() - 1))
    return gradient * (largest / norm.clamp(min=1e-12)).clamp(max=1)


def _step(p: Problem, step: NoiseStep, x: Tensor, z: Tensor, owners: Tensor) -> Tensor:
    mean, std = p.model.step_distribution(x, guided(p, x, step, owners), step)
    return mean + std * z


def _evaluate(p: Problem, free: Tensor, fixed: Sequence[Tensor], *, gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, H, W), rewards (B,) and the rewards' gradient with respect to the free noises (zero if unasked)."""

    def of(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.set_grad_enabled(gradient):
            leaf = free[rows].detach().requires_grad_(gradient)
            x, *noises = [*leaf.unbind(1), *(z[rows] for z in fixed)]
            images = p.model.decode(sample(p, x, noises, rows))
            rewards = score(p.reward, images, [p.prompts[row] for row in rows.tolist()])
            slope = reward_gradient(p, rewards, leaf) if gradient else torch.zeros_like(leaf)
        return images.detach(), rewards.detach().cpu(), slope

    images, rewards, slope = map(torch.cat, zip(*p.memory.map(of, len(free)), strict=True))
    return images, rewards, slope


@torch.enable_grad()
def _gradient(regulariser: Callable[[Tensor, int], Tensor], free: Tensor, iteration: int) -> Tensor:
    leaf = free.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(regulariser(leaf, iteration).sum(), leaf)
    return gradient
