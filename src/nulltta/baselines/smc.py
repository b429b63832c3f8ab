"""Sequential Monte Carlo: N weighted particles per prompt, whose distribution tends to p(x)·exp(λ·r(x))/Z.

Both methods draw x_{t−1} for each particle, weight it by how far its clean estimate raised the reward (and by p/q if it
was drawn from q instead of the model's p), and resample a prompt's particles when few of them carry the weight.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from nulltta.algorithm import schedules
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import View, look, preview
from nulltta.baselines.glass import transition
from nulltta.baselines.particles import (
    guided_view,
    initial_latents,
    move,
    predict,
    refuse_null_text_settings,
    require_gradient,
)
from nulltta.baselines.resampling import RESAMPLING, resampled
from nulltta.config import number, one_of, whole
from nulltta.contracts import NoiseStep, Outcome, Step, Stream
from nulltta.errors import InvalidValue
from nulltta.scoring import pick, require_slope

Potential: TypeAlias = Literal["difference", "max"]


class Weighted(NamedTuple):
    """The last particles: weighted samples of the tilted distribution.

    Attributes:
        images: (B, N, 3, H, W).
        latents: (B, N, C, h, w), what the images were decoded from.
        rewards: (B, N).
        log_weights: (B, N), not normalised.
        initial: (B, N, C, h, w), the x_T from which each descends.
    """

    images: Tensor
    latents: Tensor
    rewards: Tensor
    log_weights: Tensor
    initial: Tensor

    def outcome(self, selected: Tensor) -> Outcome:
        """Return the outcome of a method that keeps the particles with numbers `selected` (B,)."""
        initial = pick(self.initial, selected)
        return Outcome(self.images, self.rewards, selected, initial, latents=self.latents)


@dataclass(frozen=True, kw_only=True)
class DAS:
    """Diffusion alignment as sampling (DAS, arXiv 2501.05803, algorithm 1): the target is p(x)·exp(r(x)/α)/Z.

    With V = r(D(x̂0))/α, g = ∇_x V and the tempering λ_i = min((1+γ)^i − 1, 1),

        x_{t−1} ~ q = N(m(x_t) + σ_t²·λ_{i+1}·g(x_t), σ_t²I),
        log w += log p(x_{t−1}|x_t) − log q(x_{t−1}|x_t) + λ_{i+1}·V(x_{t−1}) − λ_i·V(x_t).

    Resampling carries V and g along with their particles, which the published release does not. The particle of the
    greatest weight is returned.

    Cost per prompt: 2TN denoiser branches with gradient, none without; TN decodings and scores with gradient, N
    without.

    Attributes:
        particles: N.
        temperature: α, in the unit of the reward. Published: aesthetic 0.005, PickScore 1e-4, 20·CLIP 0.01.
        annealing: γ; "auto" makes λ reach 1 at the same fraction of sampling as the published 0.008 in 100 steps.
        threshold: resample when the effective sample size is below this share of N.
        resampling: "ssp", "systematic" or "multinomial".
    """

    particles: int = 4
    temperature: float = 0.01
    annealing: float | Literal["auto"] = "auto"
    threshold: float = 0.5
    resampling: str = "ssp"

    def __post_init__(self) -> None:
        whole(self, "particles", at_least=1)
        number(self, "temperature", positive=True)
        number(self, "threshold")
        if self.annealing != "auto":
            number(self, "annealing", or_else=" or 'auto'")
        one_of(self, "resampling", RESAMPLING)

    def __call__(self, problem: Problem) -> Stream:
        end = yield from self.sample(problem)
        return end.outcome(selected=end.log_weights.argmax(1))

    @torch.no_grad()
    def sample(self, problem: Problem) -> Generator[Step, None, Weighted]:
        """Yield the steps and return the weighted particles, of which `__call__` keeps one."""
        p, (B, N) = problem, (len(problem.prompts), self.particles)
        require_gradient(p)
        steps = p.schedule()
        gamma = schedules.annealing_coefficient(self.annealing, len(steps))
        tempering = [schedules.progress(i, gamma) / self.temperature for i in range(len(steps) + 1)]  # λ_i/α

        x = initial = initial_latents(p, N)
        view = look(p, x, steps[0], gradient_at="latents")
        eps, rewards, slope = guided_view(p, view), view.rewards, view.slope
        require_slope(p.reward, slope)
        log_w = torch.zeros(B, N, dtype=torch.float64)  # λ_0 = 0
        for i, step in enumerate(steps):
            log_w, (x, eps, rewards, slope, initial) = resampled(
                log_w, (x, eps, rewards, slope, initial),
                RESAMPLING[self.resampling], self.threshold, p.generators(i, "resample"),
            )  # fmt: skip
            mean, std = move(p, x, eps, step)
            shift = std * tempering[i + 1] * slope  # q's mean is m + σ·shift
            z = p.noise(i, step, x[:, 0], N)
            x = mean + std * (shift + z)
            following = steps[i + 1] if i + 1 < len(steps) else None
            view = look(p, x, following, gradient_at="latents" if following is not None else None)
            log_w += _log_ratio(shift, z) + tempering[i + 1] * view.rewards.double() - tempering[i] * rewards.double()
            eps, rewards, slope = guided_view(p, view), view.rewards, view.slope
            yield _scored(p, i, step, view, selected=log_w.argmax(1))
        return Weighted(view.images, view.x0, rewards, log_w, initial)


@dataclass(frozen=True, kw_only=True)
class FKSteering:
    """Feynman-Kac steering (FK, arXiv 2501.06848, algorithm 1): the target is p(x)·exp(λ·r(x))/Z. Needs no gradient.

    The particles move as in plain sampling. At a few steps log w is raised by a potential of r(D(x̂0)):
    λ·(r − the lineage's r at the previous time), "difference", or λ·(the lineage's largest r so far), "max"; at the
    end by λ·r(x_0) less what the lineage was given before. The particle of the greatest reward is returned.

    Between two resamplings weights add up, as in the paper; the published release drops those of a time at which it
    does not resample.

    A transition is one denoising step, or several: then an ODE over them samples it (`glass.transition`), of a flow
    model as of any other.

    Cost per prompt: 2TN denoiser branches without gradient; N decodings and scores at each time and at the end.

    Attributes:
        particles: k in the paper.
        reward_weight: λ, per unit of the reward. Published: 2 to 10, for ImageReward.
        potential: "difference" or "max".
        times: when to weight and resample, as fractions of sampling. Published: steps 20, 40, 60 and 80 of 100.
        threshold: resample when the effective sample size is below this share of N, as in the paper; None, the default
            of the published release, resamples at each of the times.
        resampling: "multinomial", "systematic" or "ssp".
        transition_steps: denoising steps per transition, which must divide T; more than 1 need η = 1.
    """

    particles: int = 4
    reward_weight: float = 10.0
    potential: Potential = "difference"
    times: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    threshold: float | None = None
    resampling: str = "multinomial"
    transition_steps: int = 1

    def __post_init__(self) -> None:
        whole(self, "particles", at_least=1)
        whole(self, "transition_steps", at_least=1)
        number(self, "reward_weight")
        if self.threshold is not None:
            number(self, "threshold")
        one_of(self, "potential", get_args(Potential))
        one_of(self, "resampling", RESAMPLING)
        if any(not 0 < time < 1 for time in self.times):
            raise InvalidValue(f"must be fractions of sampling, between 0 and 1, not {self.times}", "times")

    def __call__(self, problem: Problem) -> Stream:
        end = yield from self.sample(problem)
        return end.outcome(selected=end.rewards.argmax(1))

    @torch.no_grad()
    def sample(self, problem: Problem) -> Generator[Step, None, Weighted]:
        """Yield the steps and return the weighted particles, of which `__call__` keeps one."""
        p, (B, N) = problem, (len(problem.prompts), self.particles)
        refuse_null_text_settings(p.config)
        steps, size = p.schedule(), self.transition_steps
        self._check(steps)
        starts = range(0, len(steps), size)
        times = {size * round(time * len(starts)) for time in self.times} - {0, len(steps)}

        x = initial = initial_latents(p, N)
        eps = predict(p, x, steps[0])
        log_w = torch.zeros(B, N, dtype=torch.float64)
        given = torch.zeros_like(log_w)  # the log-potentials that a lineage was given so far
        largest = torch.full_like(log_w, -torch.inf)  # its largest reward so far
        for i in starts:
            if i in times:
                log_w, (x, eps, given, largest, initial) = resampled(
                    log_w, (x, eps, given, largest, initial),
                    RESAMPLING[self.resampling], self.threshold, p.generators(i, "resample"),
                )  # fmt: skip
            end = i + size
            x = _moved(p, x, eps, steps[i:end], noise=p.noise(i, steps[i], x[:, 0], N))
            *between, last = range(i, end)
            for k in between:
                yield Step.unscored(k, steps[k].timestep, B)
            following = steps[end] if end < len(steps) else None
            if following is not None and end not in times:
                eps = predict(p, x, following)
                yield Step.unscored(last, steps[last].timestep, B)
                continue
            view = look(p, x, following)
            eps, rewards = guided_view(p, view), view.rewards
            largest = largest.maximum(rewards.double())
            potential = self._potential(rewards.double(), largest, given, last=following is None)
            log_w, given = log_w + potential, given + potential
            yield _scored(p, last, steps[last], view, selected=rewards.argmax(1))
        return Weighted(view.images, view.x0, rewards, log_w, initial)

    def _check(self, steps: Sequence[NoiseStep]) -> None:
        """Refuse transitions of several steps that the schedule does not have."""
        if self.transition_steps == 1:
            return
        if len(steps) % self.transition_steps:
            raise InvalidValue(f"must divide the number of denoising steps, {len(steps)}", "transition_steps")
        if any(step.eta != 1 for step in steps):
            raise InvalidValue("above 1 belongs to the ancestral sampler: set eta to 1", "transition_steps")
        if any(step.alpha_bar_previous <= step.alpha_bar for step in steps):
            raise InvalidValue("above 1 needs noise levels that fall at every denoising step", "transition_steps")

    def _potential(self, rewards: Tensor, largest: Tensor, given: Tensor, *, last: bool) -> Tensor:
        """Return log G, (B, N). Over a lineage "difference" adds up to λ·r; the last step makes any potential do so."""
        if self.potential == "difference" or last:
            return self.reward_weight * rewards - given
        return self.reward_weight * largest


def _moved(p: Problem, x: Tensor, eps: Tensor, steps: Sequence[NoiseStep], noise: Tensor) -> Tensor:
    """Return particles (B, N, C, h, w) after one transition."""
    if len(steps) > 1:
        return transition(p, x, eps, steps, noise)
    mean, std = move(p, x, eps, steps[0])
    return mean + std * noise


def _scored(p: Problem, index: int, step: NoiseStep, view: View, selected: Tensor) -> Step:
    """Return the step of particles that were looked at."""
    unscored = Step.unscored(index, step.timestep, len(selected), preview(p, view, selected))
    return replace(unscored, candidate_rewards=view.rewards, selected=selected)


def _log_ratio(shift: Tensor, z: Tensor) -> Tensor:
    """Return log p(x) − log q(x), (B, N), for x = m + σ(shift + z), p = N(m, σ²I) and q = N(m + σ·shift, σ²I)."""
    return -(shift * z + shift.square() / 2).flatten(2).cpu().double().sum(2)
