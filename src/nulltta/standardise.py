"""Measuring what z(reward) stands on: each prompt's mean and deviation over its own plain samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.embeddings import transform
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import plain
from nulltta.contracts import Reward
from nulltta.rewards.compose import Custom, measured, unmeasured

SAMPLES = 8
"""Plain samples a prompt, of seeds 0 to 7: the same whatever the run's own seed and the rest of its batch."""


def standardised(problem: Problem) -> Problem:
    """The problem with every z(...) of its reward and guard that has no figures yet measured: 2T·8 denoiser branches
    a prompt, and nothing at all where there is none."""
    rewards = [reward for reward in (problem.reward, problem.guard) if reward is not None]
    if not any(map(unmeasured, rewards)):
        return problem
    distinct = dict.fromkeys(problem.prompts)
    prompts = [prompt for prompt in distinct for _ in range(SAMPLES)]
    images = torch.cat([_plain_images(problem, list(problem.prompts).index(prompt)) for prompt in distinct])

    def known(reward: Reward) -> Reward:
        with torch.no_grad():
            return measured(reward, images, prompts)

    return replace(problem, reward=known(problem.reward), guard=None if problem.guard is None else known(problem.guard))


def _plain_images(problem: Problem, b: int) -> Tensor:
    """(8, 3, H, W): plain samples of prompt b."""
    seeds = list(range(SAMPLES))
    branches = (problem.cond, problem.null)
    cond, null = (transform(branch, lambda t: t[b : b + 1].repeat_interleave(SAMPLES, 0)) for branch in branches)
    prompts = [problem.prompts[b]] * SAMPLES
    latents = randomness.initial_latents(problem.model, seeds, 1).to(problem.latents)
    stream = plain(replace(problem, prompts=prompts, cond=cond, null=null, reward=_NONE, seeds=seeds, latents=latents))
    while True:
        try:
            next(stream)
        except StopIteration as end:
            images: Tensor = end.value.candidates[:, 0]
            return images


def _nothing(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return torch.zeros(len(prompts), device=images.device)


_NONE = Custom(_nothing, "none")
