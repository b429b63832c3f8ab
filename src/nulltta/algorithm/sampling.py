"""The sampling loops: generators of `Step`s, one a denoising step, that return an `Outcome`.

Null-TTA (arXiv 2511.20889), METHOD's algorithm. Symbols: c prompt embedding, φ null embedding as encoded and φ' as
optimised, s guidance scale, ε̃ guided prediction, x̂0 clean estimate, K candidates, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nulltta.algorithm import schedules
from nulltta.algorithm.budget import Clock, planned
from nulltta.algorithm.cma_es import evolution
from nulltta.algorithm.embeddings import distance, take, where
from nulltta.algorithm.gradients import ESTIMATORS, in_micro_batches
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import Objective, predict_branches
from nulltta.algorithm.optimiser import GradientAscent, InnerLoop
from nulltta.algorithm.problem import Problem
from nulltta.contracts import Embedding, NoiseStep, Outcome, Step, Stream
from nulltta.scoring import greedy, pick, require_differentiable, require_slope, score


@dataclass(frozen=True, slots=True)
class Candidates:
    """K latents a prompt, seen through their clean estimates under φ'."""

    x: Tensor  # (B, K, C, h, w)
    eps: Tensor  # ε(x, φ'), same shape
    eps_cond: Tensor  # ε(x, c), same shape: the winner's serve the next denoising step
    images: Tensor  # (B, K, 3, H, W)
    rewards: Tensor  # (B, K)


@torch.no_grad()
def plain(problem: Problem) -> Stream:
    """Ordinary sampling under classifier-free guidance, of each prompt's first initial latent."""
    p, s = problem, problem.config.guidance_scale
    x = initial = p.latents[:, 0]
    zeros = torch.zeros(len(x))
    for i, step in enumerate(p.schedule()):
        eps = p.model.guide(*predict_branches(p.model, x, step, p.null, p.cond), s)
        preview = p.model.decode(p.model.predict_x0(x, eps, step))
        mean, std = p.model.step_distribution(x, eps, step)
        x = mean + std * p.noise(i, step, x, particles=1)[:, 0]
        yield Step(i, step.timestep, torch.empty(0, len(x)), torch.empty(len(x), 0), zeros.long(), zeros, preview)
    images = p.model.decode(x)
    rewards = score(p.reward, images, p.prompts)
    return Outcome(images[:, None], rewards[:, None].cpu(), zeros.long(), initial)


@torch.no_grad()
def null_tta(problem: Problem) -> Stream:
    """Null-text test-time alignment: optimise φ', draw K candidates, keep the best, at every denoising step.

    Cost for a prompt: `budget.evaluations`, Σn_i denoiser branches with gradient and 2KT + 2T without.
    """
    p, cfg, s = problem, problem.config, problem.config.guidance_scale
    B, K = len(p.prompts), cfg.num_particles
    gamma = schedules.annealing_coefficient(cfg.annealing, cfg.num_inference_steps)
    climb = _inner_loop(p)
    steps = p.schedule()
    clock = Clock(cfg.seconds_budget and cfg.seconds_budget * B, planned(cfg))
    null, nulls, moved = dict(p.start or p.null), [], p.start is not None  # φ', carried over from step to step
    active = torch.ones(B, dtype=torch.bool)

    drawn = _candidates(p, p.latents, steps[0], null)  # 1. K initial latents
    selected = p.selector(drawn.rewards, p.generators(-1, "select"))
    x, eps, eps_cond = (pick(values, selected) for values in (drawn.x, drawn.eps, drawn.eps_cond))
    initial, initial_rewards = x, drawn.rewards

    for i, step in enumerate(steps):
        inner = clock.inner_steps(i)
        # 2a. ε(x_t, φ): until φ' moves, the winner's; but not under inner steps, where rounding would pass for a move.
        eps_null = p.model.predict(x, step, p.null) if moved or inner else eps
        anneal = schedules.regularisation(i, gamma)
        objective = Objective(p.model, p.reward, p.prompts, cfg, step, x, eps_cond, eps_null, p.null, anneal)
        before, since = null, clock.elapsed()
        generators = p.generators(i, "gradient")
        null, inner_rewards = climb(objective, null, steps=inner, generators=generators, active=active)  # 2b. n_i steps
        clock.took(len(inner_rewards), since)
        if len(inner_rewards):
            if not moved:
                _refuse_unmoved(p, null)
            moved, eps = True, p.model.predict(x, step, null)  # ε(x_t, φ'); without inner steps it is known already
        if p.guard is not None:
            null, eps, active = _guarded(p, step, x, eps_cond, (before, null), (eps_null, eps), active)
        nulls.append(null)

        mean, std = p.model.step_distribution(x, p.model.guide(eps, eps_cond, s), step)  # 2c. K candidates x_{t−1}
        latents = mean[:, None] + std * p.noise(i, step, x, K)
        drawn = _candidates(p, latents, steps[i + 1] if i + 1 < len(steps) else None, null)
        selected = p.selector(drawn.rewards, p.generators(i, "select"))
        kl = objective.kl(eps).cpu()
        x, eps, eps_cond = (pick(values, selected) for values in (drawn.x, drawn.eps, drawn.eps_cond))
        yield Step(i, step.timestep, inner_rewards, drawn.rewards, selected, kl, pick(drawn.images, selected))

    best = greedy(drawn.rewards)  # 3. the best of the K decoded images
    return Outcome(drawn.images, drawn.rewards, best, initial, initial_rewards, nulls)


def _candidates(p: Problem, latents: Tensor, step: NoiseStep | None, null: Embedding) -> Candidates:
    """Score K latents a prompt, (B, K, C, h, w): by x̂0 under φ' at `step`, or as they are after the last step."""
    B, K = latents.shape[:2]

    def seen(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, owners = latents.flatten(0, 1)[rows], rows // K
        x0 = eps = eps_cond = x
        if step is not None:
            eps, eps_cond = predict_branches(p.model, x, step, take(null, owners), take(p.cond, owners))
            x0 = p.model.predict_x0(x, p.model.guide(eps, eps_cond, p.config.guidance_scale), step)
        images = p.model.decode(x0)
        prompts = [p.prompts[owner] for owner in owners.tolist()]
        return (
            eps,
            eps_cond,
            images,
            score(p.reward, images, prompts, allow_nan=p.config.conventions == "release").cpu(),
        )

    columns = map(torch.cat, zip(*p.memory.map(seen, B * K), strict=True))
    return Candidates(latents, *(column.view(B, K, *column.shape[1:]) for column in columns))


def _guarded(
    p: Problem,
    step: NoiseStep,
    x: Tensor,
    eps_cond: Tensor,
    nulls: tuple[Embedding, Embedding],
    predictions: tuple[Tensor, Tensor],
    active: Tensor,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Compare the guard's reward of x̂0 under φ' and under φ; a prompt where it fell goes back to φ' before the step
    and stays there. Returns (φ', ε(x_t, φ'), active)."""
    assert p.guard is not None
    before, after = nulls
    guided_eps = [p.model.guide(eps, eps_cond, p.config.guidance_scale) for eps in predictions]
    images = [p.model.decode(p.model.predict_x0(x, eps, step)) for eps in guided_eps]
    reference, moved = (score(p.guard, image, p.prompts) for image in images)
    kept = (moved >= reference).cpu()
    if bool((active & ~kept).any()):
        null = where((kept | ~active).to(x.device), after, before)
        return null, p.model.predict(x, step, null), active & kept
    return dict(after), predictions[1], active


def _inner_loop(p: Problem) -> InnerLoop:
    """What moves φ' at each denoising step: Adam along a gradient, or CMA-ES; "auto" goes by the reward."""
    config = p.config.resolved(differentiable=p.reward.differentiable)
    if config.gradient == "zeroth-order" and config.zeroth_order_directions == "cma":
        return evolution(config, p.model)
    if config.gradient == "autograd":
        require_differentiable(p.reward, "set gradient to zeroth-order or auto")
    # A gradient's rows take more memory than a candidate's.
    memory = MicroBatch(p.memory.rows, p.model.enable_checkpointing)
    return GradientAscent(config, in_micro_batches(ESTIMATORS[config.gradient](config, p.model), memory))


def _refuse_unmoved(p: Problem, null: Embedding) -> None:
    """At φ' = φ the regularisers have no gradient: a first denoising step that moves no prompt's φ' at all is a
    reward whose gradient is zero everywhere, and it must not pass for an optimised one."""
    if p.config.reward_weight == 0 or p.config.learning_rate == 0 or p.config.conventions == "release":
        return
    require_slope(p.reward, distance(null, p.start or p.null))
