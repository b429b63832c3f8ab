"""Resampling of particles: expected counts, variance and ancestors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nulltta.algorithm.randomness import generator
from nulltta.baselines.resampling import RESAMPLING, effective_sample_size, resampled

WEIGHTS = torch.tensor([0.05, 0.4, 0.0, 0.37, 0.18], dtype=torch.float64)


def test_the_effective_sample_size() -> None:
    log_weights = torch.tensor([[0.0, 0.0, 0.0, 0.0], [5.0, -1e9, -1e9, -1e9], [0.0, math.log(3.0), -1e9, -1e9]])
    torch.testing.assert_close(effective_sample_size(log_weights), torch.tensor([4.0, 1.0, 16 / 10]))
    torch.testing.assert_close(effective_sample_size(log_weights + 1000), effective_sample_size(log_weights))


@pytest.mark.parametrize("name", RESAMPLING)
def test_the_expected_counts_are_the_weights(name: str) -> None:
    draws = 4000
    counts = torch.stack([_counts(name, WEIGHTS, seed) for seed in range(draws)])
    expected = len(WEIGHTS) * WEIGHTS
    error = 4.5 * (expected.clamp(min=0.02) / draws).sqrt()  # the multinomial's variance is the largest
    assert bool(((counts.mean(0) - expected).abs() <= error).all())
    assert bool((counts[:, 2] == 0).all())
    assert len(counts.unique(dim=0)) > 1


@pytest.mark.parametrize("name", ["systematic", "ssp"])
def test_the_counts_are_within_one_of_the_weights(name: str) -> None:
    for seed in range(500):
        weights = torch.randn(17, generator=generator(seed), dtype=torch.float64).mul(2).softmax(0)
        counts, expected = _counts(name, weights, seed), 17 * weights
        assert counts.sum() == 17
        assert bool((counts >= (expected - 1e-9).floor()).all())
        assert bool((counts <= (expected + 1e-9).ceil()).all())


@pytest.mark.parametrize("name", ["systematic", "ssp"])
def test_equal_weights_keep_every_particle(name: str) -> None:
    equal = torch.full((6,), 1 / 6, dtype=torch.float64)
    assert all(_counts(name, equal, seed).tolist() == [1] * 6 for seed in range(50))


def test_only_prompts_with_few_effective_particles_are_resampled() -> None:
    log_weights = torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.0, 90.0]], dtype=torch.float64)
    x, r = torch.arange(12.0).view(2, 3, 2), torch.arange(6.0).view(2, 3)
    generators = [generator(0), generator(1)]
    log_w, (x_, r_) = resampled(log_weights, (x, r), RESAMPLING["systematic"], 0.5, generators)
    assert torch.equal(log_w[0], log_weights[0])
    assert log_w[1].tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(x_[0], x[0])
    assert torch.equal(r_[0], r[0])
    assert x_[1].tolist() == [[10.0, 11.0]] * 3
    assert r_[1].tolist() == [5.0] * 3


def test_equal_weights_are_never_resampled() -> None:
    x = torch.arange(7.0).view(1, 7)
    _, (kept,) = resampled(torch.zeros(1, 7, dtype=torch.float64), (x,), RESAMPLING["multinomial"], 1.0, [generator(0)])
    assert torch.equal(kept, x)


def _counts(name: str, weights: Tensor, seed: int) -> Tensor:
    ancestors = RESAMPLING[name](weights, generator(seed, name))
    assert len(ancestors) == len(weights)
    return ancestors.bincount(minlength=len(weights)).double()
