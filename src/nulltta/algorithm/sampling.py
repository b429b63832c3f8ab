"""The sampling loops: generators that yield one `Step` per denoising step and return an `Outcome`.

`null_tta` is the paper's algorithm (Null-TTA, arXiv 2511.20889; docs/method.md). Symbols: c prompt embedding, φ null
embedding as encoded and φ' as optimised, s guidance scale, ε̃ guided prediction, x̂0 clean estimate, K candidates, T
denoising steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from nulltta.algorithm import schedules
from nulltta.algorithm.budget import planned_for
from nulltta.algorithm.cma_es import Evolution, Span, word_basis
from nulltta.algorithm.embeddings import distance, is_free
from nulltta.algorithm.gradients import ESTIMATORS, in_micro_batches
from nulltta.algorithm.objective import Objective
from nulltta.algorithm.optimiser import GradientAscent, StartAscent, ascend
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.tilt import draws_noise, require_noise, tilted
from nulltta.algorithm.trust_region import within
from nulltta.algorithm.views import (
    GradientAt,
    both_predicted,
    clean_slope,
    decoded,
    look,
    predicted,
    preview,
    require_gradient,
)
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel, NoiseStep, Outcome, Step, Stream
from nulltta.errors import InvalidValue
from nulltta.scoring import greedy, pick, require_differentiable, require_slope


def denoise(
    model: GuidedModel,
    x: Tensor,
    steps: Sequence[NoiseStep],
    branches: Callable[[int, Tensor], tuple[Tensor, Tensor]],
    noise: Callable[[int, Tensor], Tensor],
    scale: float,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Sample under guidance.

    Args:
        model: the model.
        x: (N, C, h, w), x_T.
        steps: the denoising steps.
        branches: (i, x_t) -> (ε(x_t, φ), ε(x_t, c)) at the i-th step.
        noise: (i, x_t) -> the i-th step's noise.
        scale: s.

    Yields:
        (x_t, ε̃(x_t), x_{t−1}) at each step.
    """
    for i, step in enumerate(steps):
        eps = model.guide(*branches(i, x), scale)
        mean, std = model.step_distribution(x, eps, step)
        previous, x = x, mean + std * noise(i, x)
        yield previous, eps, x


@torch.no_grad()
def plain(problem: Problem) -> Stream:
    """Sample under classifier-free guidance from each prompt's first initial latent; no reward is used.

    A null text to start from replaces φ; it is not optimised.
    """
    p, B, steps = problem, len(problem.prompts), problem.schedule()
    x = p.latents[:, 0]

    def branches(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return both_predicted(p, x, steps[i], None if p.start is None else p.start(i))

    def noise(i: int, x: Tensor) -> Tensor:
        return p.noise(i, steps[i], x, particles=1)[:, 0]

    kl = 0.0 if p.start is None else math.nan
    trajectory = denoise(p.model, x, steps, branches, noise, p.config.guidance_scale)
    for i, (x_t, eps, x_next) in enumerate(trajectory):
        yield Step.unscored(i, steps[i].timestep, B, partial(_preview, p, x_t, eps, steps[i]), kl=kl)
        x = x_next
    view, first = look(p, x[:, None], None), torch.zeros(B, dtype=torch.long)
    return Outcome(view.images, view.rewards, first, p.latents[:, 0], latents=x[:, None])


@torch.no_grad()
def null_tta(problem: Problem) -> Stream:
    """Null-text test-time alignment: at every denoising step, optimise φ', draw K candidates and keep the best.

    It costs `budget.evaluations` per prompt: Σn_i denoiser branches with gradient, 2KT + 2T without.
    """
    p, cfg, s = problem, problem.config, problem.config.guidance_scale
    K, release = cfg.num_particles, cfg.conventions == "release"
    gamma = schedules.annealing_coefficient(cfg.annealing, cfg.num_inference_steps)
    counts, steps = planned_for(p), p.schedule()
    _refuse_idle_tilt(p, counts, steps)
    ascent = _start_ascent(p)
    start = p.start or (lambda _: p.null)
    null, nulls = start(0), []  # φ'; what it learns beyond its start is carried over from step to step
    kept = []  # the noise of the selected candidates, where it is not the seed's own
    moved, learnt = p.start is not None, False

    # Where a look takes ∇_{x̂0} r(D(x̂0)) for the next tilt too: at the only candidate, if nothing moves φ' in between.
    sloped: list[GradientAt | None] = [
        "estimates" if _looks_once(cfg) and not n and draws_noise(p.model, p.latents[:, 0], step) else None
        for n, step in zip(counts, steps, strict=True)
    ]
    sloped.append(None)

    view = look(p, p.latents, steps[0], null, gradient_at=sloped[0], allow_nan=release)  # 1. K initial latents
    selected = greedy(view.rewards)
    x, eps, eps_cond = (pick(values, selected) for values in (p.latents, view.eps_null, view.eps_cond))
    initial, initial_rewards = x, view.rewards

    for i, (step, n) in enumerate(zip(steps, counts, strict=True)):
        # 2a. ε(x_t, φ). Until φ' moves it is the selected candidate's, except under inner steps, where the rounding of
        # another batch would pass for a movement.
        eps_null = predicted(p.model, p.memory, x, step, p.null) if moved or n else eps
        anneal = schedules.regularisation(i, gamma)
        objective = Objective(p.model, p.reward, p.prompts, cfg, step, x, eps_cond, eps_null, p.null, anneal)
        null, inner_rewards = ascend(objective, null, ascent, steps=n, generators=p.generators(i, "gradient"))  # 2b.
        if len(inner_rewards):
            if not moved:
                _refuse_unmoved(p, null)
            moved = learnt = True
            eps = predicted(p.model, p.memory, x, step, null)  # ε(x_t, φ'); without inner steps it is known already
        if cfg.kl_target is not None and moved:
            null, eps, kl = within(objective, null, eps, cfg.kl_target)
        else:
            kl = objective.kl(eps)
        nulls.append(null)

        mean, std = p.model.step_distribution(x, p.model.guide(eps, eps_cond, s), step)  # 2c. K candidates x_{t−1}
        noise = p.noise(i, step, x, K)
        if cfg.noise_tilt and std > 0:
            slope = view.slope[:, 0] if sloped[i] else clean_slope(p, x, step, eps, eps_cond)
            noise = tilted(noise, slope, cfg.noise_tilt)
        latents = mean[:, None] + std * noise
        if i + 1 < len(steps):
            null = _carried(null, start(i), start(i + 1)) if learnt else start(i + 1)
        following = steps[i + 1] if i + 1 < len(steps) else None
        view = look(p, latents, following, null, gradient_at=sloped[i + 1], allow_nan=release)
        selected = greedy(view.rewards)
        x, eps, eps_cond = (pick(values, selected) for values in (latents, view.eps_null, view.eps_cond))
        if cfg.noise_tilt:
            kept.append(pick(noise, selected))
        yield Step(i, step.timestep, inner_rewards, view.rewards, selected, kl.cpu(), preview(p, view, selected))

    best = greedy(view.rewards)  # 3.
    return Outcome(view.images, view.rewards, best, initial, initial_rewards, nulls, view.x0, kept)


def _looks_once(config: NullTTAConfig) -> bool:
    """Return whether one decoding and scoring of a candidate serves its reward and the tilt from it."""
    single = config.noise_tilt > 0 and config.num_particles == 1
    return single and config.kl_target is None and config.inner_decoder == "full"


def _carried(null: Embedding, before: Embedding, after: Embedding) -> Embedding:
    """Return φ' with its start at one denoising step exchanged for its start at the next."""
    if after is before:
        return null
    return {name: null[name] + (tensor - before[name]) if is_free(tensor) else tensor for name, tensor in after.items()}


@torch.no_grad()
def _preview(p: Problem, x: Tensor, eps: Tensor, step: NoiseStep) -> Tensor:
    return decoded(p.model, p.memory, p.model.predict_x0(x, eps, step))


def _start_ascent(p: Problem) -> StartAscent:
    """Return what moves φ' at each denoising step: Adam along a gradient, or CMA-ES."""
    config = p.config.resolved(differentiable=p.reward.differentiable)
    if config.gradient == "zeroth-order" and config.zeroth_order_directions == "cma":
        span = Span(word_basis(p.model, like=p.null))
        return lambda null: Evolution(null, span, config.zeroth_order_samples, config.zeroth_order_radius)
    if config.gradient == "autograd":
        require_differentiable(p.reward, "choose another gradient (gradient): zeroth-order or auto")
        through_decoder = config.inner_decoder == "full" and not p.reward.reads_latents
        if through_decoder and not p.model.differentiable:
            raise InvalidValue(
                "must be zeroth-order: images that this model decodes carry no gradient (its decoder switches it off)",
                field="gradient",
            )
    estimator = in_micro_batches(ESTIMATORS[config.gradient](config, p.model), p.gradient_memory)
    release = config.conventions == "release"
    return lambda null: GradientAscent(null, estimator, config.learning_rate, skip_nonfinite=release)


def _refuse_idle_tilt(p: Problem, counts: Sequence[int], steps: Sequence[NoiseStep]) -> None:
    """Refuse a tilt of noise that has no gradient, no noise to lean, or no inner steps (n_i = `counts`) beside it."""
    if not p.config.noise_tilt:
        return
    require_gradient(p, "set the tilt of the noise to 0 (noise_tilt)", p.config.inner_decoder)
    if not any(counts):
        raise InvalidValue(
            "is for a null text that is optimised, and no inner steps are taken (inner_steps, budget); the methods "
            "noise-tilt and clean-tilt tilt without one",
            "noise_tilt",
        )
    require_noise(p.model, p.latents[:, 0], steps, "noise_tilt")


def _refuse_unmoved(p: Problem, null: Embedding) -> None:
    """Refuse a first denoising step that moved no φ' at all.

    At φ' = φ the regularisers have no gradient, so that the reward's gradient is zero everywhere: such a reward must
    not pass for an optimised one.
    """
    if p.config.weights[0] == 0 or p.config.learning_rate == 0 or p.config.conventions == "release":
        return
    require_slope(p.reward, distance(null, p.null))
