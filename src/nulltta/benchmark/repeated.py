"""A method that runs several times and keeps the best image, so that a method of fixed cost can spend a larger
budget."""

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
    """The best of k runs of a method, each from its own noise; the first run has the noise of the seed itself.

    It costs k times what the method costs.

    Attributes:
        method: what runs, as `align` takes it.
        samples: k, the number of runs.
    """

    method: Callable[[Problem], Stream]
    samples: int

    def __call__(self, problem: Problem) -> Stream:
        """Yield the steps of all runs, one run after the other."""
        images, rewards, initial, latents = [], [], [], []
        for j in range(self.samples):
            outcome = yield from self.method(_reseeded(problem, j))
            images.append(pick(outcome.candidates, outcome.selected))
            rewards.append(pick(outcome.rewards, outcome.selected))
            initial.append(outcome.initial_latents)
            latents += [] if outcome.latents is None else [pick(outcome.latents, outcome.selected)]
        candidates = torch.stack(rewards, 1)
        best = greedy(candidates)
        kept = pick(torch.stack(initial, 1), best)
        decoded = torch.stack(latents, 1) if latents else None
        return Outcome(torch.stack(images, 1), candidates, best, kept, latents=decoded)


def _reseeded(problem: Problem, j: int) -> Problem:
    """Return the problem with the noise of its j-th run; the 0-th is the problem itself."""
    if j == 0:
        return problem
    seeds = [randomness.generator(seed, "run", j).initial_seed() for seed in problem.seeds]
    particles, steps = problem.latents.shape[1], problem.config.num_inference_steps
    latents = randomness.initial_latents(problem.model, seeds, particles, steps)
    return replace(problem, seeds=seeds, latents=latents.to(problem.latents))
