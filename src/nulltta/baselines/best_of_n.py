"""Best-of-N: the simplest rival, and at equal cost a hard one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nulltta.algorithm.problem import Problem
from nulltta.baselines.lookahead import initial_latents, look, move, predict, refuse_guard
from nulltta.config import whole
from nulltta.contracts import Outcome, Step, Stream
from nulltta.scoring import greedy, pick


@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """N plain samples a prompt, of which the one with the best reward is kept. Needs no gradient.

    Sample n starts from the seed's n-th initial latent and takes candidate n's noise at each step, so that the first
    is plain sampling's own, and the N samples are among those of any larger N.

    Cost for a prompt: 2TN denoiser branches without gradient; N images decoded and scored.
    """

    samples: int = 16  # N

    def __post_init__(self) -> None:
        whole(self, "samples", at_least=1)

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, (B, N) = problem, (len(problem.prompts), self.samples)
        refuse_guard(p)
        x = initial = initial_latents(p, N)
        zeros = torch.zeros(B)
        for i, step in enumerate(p.schedule()):
            mean, std = move(p, x, predict(p, x, step), step)
            x = mean + std * p.noise(i, step, x[:, 0], N)
            yield Step(i, step.timestep, torch.empty(0, B), torch.empty(B, 0), zeros.long(), zeros)
        view = look(p, x, None)
        best = greedy(view.rewards)
        return Outcome(view.images, view.rewards, best, pick(initial, best))
