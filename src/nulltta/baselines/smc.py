"""Sequential Monte Carlo: N weighted particles a prompt, whose weighted distribution tends to p(x)·exp(λ·r(x))/Z.

Both rivals draw x_{t−1} for each particle, weigh it by how far its clean estimate raised the reward (and by p/q where
it was drawn from q and not from the model's p), and resample a prompt's particles where few of them carry the weight.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nulltta.algorithm import schedules
from nulltta.algorithm.problem import Problem
from nulltta.baselines.lookahead import initial_latents, look, move, predict, refuse_guard, require_gradient
from nulltta.baselines.resampling import RESAMPLING, resampled
from nulltta.config import number, one_of, whole
from nulltta.contracts import Outcome, Step, Stream
from nulltta.errors import InvalidValue
from nulltta.scoring import pick, require_slope


class Weighted(NamedTuple):
    """The last particles: weighted samples of the tilted distribution."""

    images: Tensor  # (B, N, 3, H, W)
    rewards: Tensor  # (B, N)
    log_weights: Tensor  # (B, N), not normalised
    initial: Tensor  # (B, N, C, h, w), the x_T that each one descends from

    def outcome(self, selected: Tensor) -> Outcome:
        return Outcome(self.images, self.rewards, selected, pick(self.initial, selected))


@dataclass(frozen=True, kw_only=True)
class DAS:
    """Diffusion alignment as sampling (DAS, arXiv 2501.05803, algorithm 1): the target is p(x)·exp(r(x)/α)/Z.

    With V = r(D(x̂0))/α, g = ∇_x V and the tempering λ_i = min((1+γ)^i − 1, 1),

        x_{t−1} ~ q = N(m(x_t) + σ_t²·λ_{i+1}·g(x_t), σ_t²I),
        log w += log p(x_{t−1}|x_t) − log q(x_{t−1}|x_t) + λ_{i+1}·V(x_{t−1}) − λ_i·V(x_t).

    Resampling takes V and g along with their particles; the published release leaves them behind. It returns the
    particle of greatest weight.

    Cost for a prompt: 2TN denoiser branches with gradient, none without; TN decodings and scores with gradient, N
    without.

    Attributes:
        particles: N.
        temperature: α, in the reward's unit. Published: aesthetic 0.005, PickScore 1e-4, 20·CLIP 0.01.
        annealing: γ; "auto" makes λ reach 1 at the same fraction of sampling as the published 0.008 in 100 steps.
        threshold: resample where the effective sample size is below this share of N.
        resampling: "ssp", "systematic" or "multinomial".
    """

    particles: int = 4
    temperature: float = 0.01
    annealing: float | Literal["auto"] = "auto"
    threshold: float = 0.5
    resampling: str = "ssp"

    def __post_init__(self) -> None:
        whole(self, "particles", at_least=1)
        for name in ("temperature", "threshold"):
            number(self, name)
        if self.temperature == 0:
            raise InvalidValue("temperature must be above 0")
        if self.annealing != "auto":
            number(self, "annealing", or_else=" or 'auto'")
        one_of(self, "resampling", RESAMPLING)

    def __call__(self, problem: Problem) -> Stream:
        end = yield from self.sample(problem)
        return end.outcome(selected=end.log_weights.argmax(1))

    @torch.no_grad()
    def sample(self, problem: Problem) -> Generator[Step, None, Weighted]:
        """The weighted particles, of which a call returns one."""
        p, (B, N) = problem, (len(problem.prompts), self.particles)
        require_gradient(p)
        steps, zeros = p.schedule(), torch.zeros(len(p.prompts))
        gamma = schedules.annealing_coefficient(self.annealing, len(steps))
        tempering = [schedules.progress(i, gamma) / self.temperature for i in range(len(steps) + 1)]  # λ_i/α

        x = initial = initial_latents(p, N)
        eps, _, rewards, slope = look(p, x, steps[0], gradient=True)
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
            eps, images, new, slope = look(p, x, following, gradient=following is not None)
            log_w += _log_ratio(shift, z) + tempering[i + 1] * new.double() - tempering[i] * rewards.double()
            rewards = new
            best = log_w.argmax(1)
            yield Step(i, step.timestep, torch.empty(0, B), rewards, best, zeros, pick(images, best.to(images.device)))
        return Weighted(images, rewards, log_w, initial)


@dataclass(frozen=True, kw_only=True)
class FKSteering:
    """Feynman-Kac steering (FK, arXiv 2501.06848, algorithm 1): the target is p(x)·exp(λ·r(x))/Z. Needs no gradient.

    The particles move as in plain sampling. At a few steps log w is raised by a potential of r(D(x̂0)):
    λ·(r − the lineage's r at the time before), "difference", or λ·(the lineage's largest r so far), "max"; at the end
    by λ·r(x_0) less what the lineage was given before. It returns the particle of greatest reward.

    Between two resamplings weights add up, as in the paper; the published release forgets those of a time at which it
    does not resample.

    Cost for a prompt: 2TN denoiser branches without gradient; N decodings and scores at each time and at the end.

    Attributes:
        particles: k in the paper.
        reward_weight: λ, per unit of the reward. Published: 2 to 10, for ImageReward.
        potential: "difference" or "max".
        times: when to weigh and resample, as fractions of sampling. Published: steps 20, 40, 60 and 80 of 100.
        threshold: resample where the effective sample size is below this share of N.
        resampling: "multinomial", "systematic" or "ssp".
    """

    particles: int = 4
    reward_weight: float = 10.0
    potential: Literal["difference", "max"] = "difference"
    times: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    threshold: float = 0.5
    resampling: str = "multinomial"

    def __post_init__(self) -> None:
        whole(self, "particles", at_least=1)
        for name in ("reward_weight", "threshold"):
            number(self, name)
        one_of(self, "potential", ("difference", "max"))
        one_of(self, "resampling", RESAMPLING)
        if any(not 0 < time < 1 for time in self.times):
            raise InvalidValue(f"times are fractions of sampling, between 0 and 1, not {self.times}")

    def __call__(self, problem: Problem) -> Stream:
        end = yield from self.sample(problem)
        return end.outcome(selected=end.rewards.argmax(1))

    @torch.no_grad()
    def sample(self, problem: Problem) -> Generator[Step, None, Weighted]:
        """The weighted particles, of which a call returns one."""
        p, (B, N) = problem, (len(problem.prompts), self.particles)
        refuse_guard(p)
        steps, zeros = p.schedule(), torch.zeros(len(p.prompts))
        times = {round(time * len(steps)) for time in self.times} - {0, len(steps)}

        x = initial = initial_latents(p, N)
        eps = predict(p, x, steps[0])
        log_w = torch.zeros(B, N, dtype=torch.float64)
        given = torch.zeros_like(log_w)  # the log-potentials that a lineage was given so far
        largest = torch.full_like(log_w, -torch.inf)  # its largest reward so far
        for i, step in enumerate(steps):
            log_w, (x, eps, given, largest, initial) = resampled(
                log_w, (x, eps, given, largest, initial),
                RESAMPLING[self.resampling], self.threshold, p.generators(i, "resample"),
            )  # fmt: skip
            mean, std = move(p, x, eps, step)
            x = mean + std * p.noise(i, step, x[:, 0], N)
            if i + 1 < len(steps) and i + 1 not in times:
                eps = predict(p, x, steps[i + 1])
                yield Step(i, step.timestep, torch.empty(0, B), torch.empty(B, 0), zeros.long(), zeros)
                continue
            following = steps[i + 1] if i + 1 < len(steps) else None
            eps, images, rewards, _ = look(p, x, following)
            largest = largest.maximum(rewards.double())
            potential = self._potential(rewards.double(), largest, given, last=following is None)
            log_w, given = log_w + potential, given + potential
            best = rewards.argmax(1)
            yield Step(i, step.timestep, torch.empty(0, B), rewards, best, zeros, pick(images, best.to(images.device)))
        return Weighted(images, rewards, log_w, initial)

    def _potential(self, rewards: Tensor, largest: Tensor, given: Tensor, *, last: bool) -> Tensor:
        """log G, (B, N). Over a lineage "difference" adds up to λ·r; the last one makes any potential do so."""
        if self.potential == "difference" or last:
            return self.reward_weight * rewards - given
        return self.reward_weight * largest


def _log_ratio(shift: Tensor, z: Tensor) -> Tensor:
    """log p(x) − log q(x), (B, N), for x = m + σ(shift + z), p = N(m, σ²I) and q = N(m + σ·shift, σ²I)."""
    return -(shift * z + shift.square() / 2).flatten(2).cpu().double().sum(2)
