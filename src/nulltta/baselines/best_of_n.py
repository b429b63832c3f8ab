"""Best-of-N, the simplest method, which is hard to beat at equal cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.views import look
from nulltta.baselines.particles import initial_latents, move, predict, refuse_null_text_settings
from nulltta.config import whole
from nulltta.contracts import Outcome, Step, Stream
from nulltta.scoring import greedy, pick


@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """Draw N plain samples per prompt and keep the one with the best reward; needs no gradient.

    Sample n starts from the seed's n-th initial latent and takes candidate n's noise at each step, so that the first
    is plain sampling's own, and the N samples are among those of any larger N.

    Cost per prompt: 2TN denoiser branches without gradient; N images decoded and scored.

    Attributes:
        samples: N.
    """

    samples: int = 16

    def __post_init__(self) -> None:
        whole(self, "samples", at_least=1)

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, (B, N) = problem, (len(problem.prompts), self.samples)
        refuse_null_text_settings(p.config)
        x = initial = initial_latents(p, N)
        for i, step in enumerate(p.schedule()):
            mean, std = move(p, x, predict(p, x, step), step)
            x = mean + std * p.noise(i, step, x[:, 0], N)
            yield Step.unscored(i, step.timestep, B)
        view = look(p, x, None)
        best = greedy(view.rewards)
        return Outcome(view.images, view.rewards, best, pick(initial, best), latents=view.x0)
