"""Where randomness comes from: each prompt's own seed, and the place in the algorithm; never its place in a batch.

Candidate k's noise does not depend on K, so a run with one candidate shares the first one's of a run with three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from nulltta.contracts import GuidedModel, NoiseStep
from nulltta.errors import InvalidValue


def generator(seed: int, *place: str | int) -> torch.Generator:
    """A CPU generator for one place of one prompt's run, the same on every device."""
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def per_prompt_seeds(seed: int | Sequence[int], batch: int) -> list[int]:
    """One seed a prompt. An int gives every prompt the same noise, as a paired comparison wants."""
    seeds = [seed] * batch if isinstance(seed, int | float) else list(seed)
    if len(seeds) != batch:
        raise InvalidValue(f"{len(seeds)} seeds for {batch} prompts: give one seed, or one a prompt")
    if any(type(s) is not int or s < 0 for s in seeds):
        raise InvalidValue(f"a seed is a whole number, 0 or more, not {seed}")
    return seeds


def initial_latents(model: GuidedModel, seeds: Sequence[int], particles: int) -> Tensor:
    """(B, K, C, h, w) draws of x_T."""
    return torch.stack(
        [
            torch.cat([model.initial_latents(1, generator(seed, "initial", k)) for k in range(particles)])
            for seed in seeds
        ]
    )


def seeded(seeds: Sequence[int], index: int, like: Tensor, particles: int) -> Tensor:
    """(B, K, C, h, w) standard normal noise of denoising step `index`; like: (B, C, h, w)."""
    shape = like.shape[1:]
    draws = [
        torch.stack([torch.randn(shape, generator=generator(seed, "step", index, k)) for k in range(particles)])
        for seed in seeds
    ]
    return torch.stack(draws).to(like)


def by_timestep(step: NoiseStep, like: Tensor, particles: int) -> Tensor:
    """The published release's noise: one (K, C, h, w) draw seeded by int(t), the same for every prompt and seed."""
    source = torch.Generator().manual_seed(int(step.timestep))
    noise = torch.randn((particles, *like.shape[1:]), generator=source)
    return noise.expand(len(like), *noise.shape).to(like)
