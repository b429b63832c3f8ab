"""Noise from each prompt's own seed."""

from __future__ import annotations

import pytest
import torch

from nulltta.algorithm import randomness
from nulltta.contracts import NoiseStep
from nulltta.errors import NullTTAError

STEP = NoiseStep(timestep=41, alpha_bar=0.5, alpha_bar_previous=0.6, consistency=1.0)


def test_a_prompts_noise_depends_only_on_its_seed_and_the_step() -> None:
    three = randomness.seeded([7, 8, 9], 2, torch.zeros(3, 4, 5, 5), particles=3)
    one = randomness.seeded([9], 2, torch.zeros(1, 4, 5, 5), particles=1)
    assert torch.equal(three[2, :1], one[0])
    assert not torch.equal(three[0], three[1])
    assert not torch.equal(three[0, 0], three[0, 1])
    assert not torch.equal(one, randomness.seeded([9], 3, torch.zeros(1, 4, 5, 5), particles=1))


def test_noise_is_standard_normal() -> None:
    draws = randomness.seeded(range(50), 0, torch.zeros(50, 4, 8, 8), particles=4)
    assert draws.mean().abs() < 0.02
    assert abs(draws.std() - 1) < 0.02


def test_the_releases_noise_is_one_draw_seeded_by_the_timestep() -> None:
    expected = torch.randn((3, 4, 5, 5), generator=torch.Generator().manual_seed(41))
    drawn = randomness.by_timestep(STEP, torch.zeros(2, 4, 5, 5), particles=3)
    assert torch.equal(drawn[0], expected)
    assert torch.equal(drawn[1], expected)


@pytest.mark.parametrize("seed", [-1, [1, 2], [0, -3, 1], [0.5, 1, 2], True])
def test_bad_seeds_are_refused(seed: object) -> None:
    with pytest.raises(NullTTAError, match="seed"):
        randomness.per_prompt_seeds(seed, 3)  # type: ignore[arg-type]
