"""Random draws, which depend on a prompt's own seed and the place in the algorithm, never on its place in a batch.

Candidate k's noise does not depend on K: the first candidate of three gets the same noise as an only one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from nulltta.config.settings import LARGEST_SEED
from nulltta.contracts import GuidedModel, NoiseStep
from nulltta.errors import InvalidValue


def generator(seed: int, *place: str | int) -> torch.Generator:
    """Return a CPU generator for one place of one prompt's run; its draws are the same on every device."""
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def per_prompt_seeds(seed: int | Sequence[int], batch: int) -> list[int]:
    """Return one seed per prompt. An int gives every prompt the same noise, as in a paired comparison.

    Raises:
        InvalidValue: if a seed is not a whole number, 0 to `LARGEST_SEED`, or there are not as many as prompts.
    """
    seeds = [seed] * batch if isinstance(seed, int | float) else list(seed)
    if len(seeds) != batch:
        raise InvalidValue(f"{len(seeds)} seeds for {batch} prompts: give one seed, or one per prompt")
    if any(type(s) is not int or not 0 <= s <= LARGEST_SEED for s in seeds):
        raise InvalidValue(f"must be a whole number, 0 to {LARGEST_SEED}, not {seed}", "seed")
    return seeds


def own_seed(draw: int, prompt: str) -> int:
    """Return the seed of one draw of noise for a prompt, so that prompts of one draw do not share their noise."""
    return generator(draw, "own", prompt).initial_seed()


def initial_latents(model: GuidedModel, seeds: Sequence[int], particles: int, num_inference_steps: int) -> Tensor:
    """Draw the first latents of a run of so many steps, (B, K, C, h, w)."""

    def drawn(seed: int, k: int) -> Tensor:
        return model.first_latents(1, generator(seed, "initial", k), num_inference_steps)

    return torch.stack([torch.cat([drawn(seed, k) for k in range(particles)]) for seed in seeds])


def seeded(seeds: Sequence[int], index: int, like: Tensor, particles: int) -> Tensor:
    """Draw standard normal noise of denoising step `index`, (B, K, C, h, w), for `like` (B, C, h, w)."""
    shape = like.shape[1:]
    return torch.stack(
        [torch.stack([of_candidate(seed, index, k, shape) for k in range(particles)]) for seed in seeds]
    ).to(like)


def of_candidate(seed: int, index: int, k: int, shape: Sequence[int]) -> Tensor:
    """Draw the noise of candidate k of one prompt at denoising step `index`, of a latent's shape."""
    return torch.randn(tuple(shape), generator=generator(seed, "step", index, k), dtype=torch.float32)


def by_timestep(step: NoiseStep, like: Tensor, particles: int) -> Tensor:
    """Draw the published release's noise, (B, K, C, h, w): seeded by int(t), the same for every prompt and seed."""
    noise = of_timestep(step.timestep, particles, like.shape[1:])
    return noise.expand(len(like), *noise.shape).to(like)


def of_timestep(timestep: float, particles: int, shape: Sequence[int]) -> Tensor:
    """Draw the published release's noise of K candidates at one timestep, (K, C, h, w)."""
    source = torch.Generator().manual_seed(int(timestep))
    return torch.randn((particles, *shape), generator=source, dtype=torch.float32)
