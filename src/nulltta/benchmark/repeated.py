"""A method run several times, of which the best image counts: how a method of fixed cost spends a larger budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from nulltta.algorithm import randomness
from nulltta.algorithm.problem import Problem
from nulltta.contracts import Outcome, Stream
from nulltta.scoring import greedy, pick


@dataclass(frozen=True)
class BestOf:
    """k runs of a method from different noise; the first one's is the seed's own.

    Cost: k times the method's.
    """

    method: Callable[[Problem], Stream]
    samples: int  # k

    def __call__(self, problem: Problem) -> Stream:
        images, rewards, initial = [], [], []
        for j in range(self.samples):
            outcome = yield from self.method(_reseeded(problem, j))
            images.append(pick(outcome.candidates, outcome.selected))
            rewards.append(pick(outcome.rewards, outcome.selected))
            initial.append(outcome.initial_latents)
        candidates = torch.stack(rewards, 1)
        best = greedy(candidates)
        return Outcome(torch.stack(images, 1), candidates, best, pick(torch.stack(initial, 1), best))


def _reseeded(problem: Problem, j: int) -> Problem:
    """The problem with the noise of its j-th run; 0 is the problem itself."""
    if j == 0:
        return problem
    seeds = [randomness.generator(seed, "run", j).initial_seed() for seed in problem.seeds]
    latents = randomness.initial_latents(problem.model, seeds, problem.latents.shape[1])
    return replace(problem, seeds=seeds, latents=latents.to(problem.latents))
