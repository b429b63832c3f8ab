"""CMA-ES against functions whose optimum, curvature and invariances are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.cma_es import CMA, Evolution, Span, word_basis
from nulltta.algorithm.objective import Terms
from nulltta.algorithm.optimiser import ascend
from nulltta.contracts import Embedding
from nulltta.testing import Gaussian, nearness

from .objectives import Rowwise

B, D, R = 2, 12, 3
SPAN = Span({"tokens": torch.linalg.qr(torch.randn(D, R, generator=torch.Generator().manual_seed(1)))[0].T})
NULL: Embedding = {
    "tokens": torch.randn(B, D, generator=torch.Generator().manual_seed(2)),
    "mask": torch.ones(B, 4, dtype=torch.bool),
}
TARGET = torch.linspace(-1, 1, D)


def _terms(function: Callable[[Tensor], Tensor]) -> Rowwise:
    def terms(null: Embedding) -> Terms:
        value = function(null["tokens"])
        return Terms(value, value, torch.zeros_like(value))

    return Rowwise(terms)


QUADRATIC = _terms(lambda x: -(x - TARGET).square().sum(1))


def _evolve(
    objective: Rowwise = QUADRATIC, steps: int = 6, seeds: tuple[int, ...] = (0, 1), population: int = 8,
    null: Embedding = NULL,
) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return ascend(
        objective, null, lambda start: Evolution(start, SPAN, population, 0.1),
        steps=steps, generators=generators,
    )  # fmt: skip


def test_a_few_generations_raise_the_objective() -> None:
    null, rewards = _evolve()
    assert rewards.shape == (6, B)
    assert bool((QUADRATIC(null).value > QUADRATIC(NULL).value + 1).all())
    assert bool((rewards[-1] > rewards[0]).all())


def test_it_finds_the_spans_nearest_point_to_the_optimum_and_stays_in_the_span() -> None:
    null, _ = _evolve(steps=60)
    basis = SPAN.basis["tokens"]
    nearest = NULL["tokens"] + (TARGET - NULL["tokens"]) @ basis.T @ basis
    torch.testing.assert_close(null["tokens"], nearest, rtol=0, atol=1e-3)
    assert torch.equal(null["mask"], NULL["mask"])


def test_the_distribution_learns_the_shape_of_the_objective() -> None:
    """Long valleys need long steps: on −½·zᵀHz, C becomes proportional to H⁻¹."""
    scales = torch.tensor([1.0, 100.0, 10_000.0], dtype=torch.float64)
    generator, cma, mean = torch.Generator().manual_seed(0), CMA(3, 8, 0.3), torch.ones(3, dtype=torch.float64)
    for _ in range(120):
        offsets = cma.draw(generator)
        mean = mean + cma.learn(offsets, -(scales * (mean + offsets).square()).sum(1) / 2)
    assert (scales * mean.square()).sum() < 1e-10
    lengths = cma.covariance.diagonal().sqrt()
    torch.testing.assert_close(
        (lengths[0] / lengths).log10() / 2, torch.tensor([0.0, 0.5, 1.0]).double(), rtol=0, atol=0.2
    )


def test_only_the_order_of_values_counts() -> None:
    bent = _terms(lambda x: (-(x - TARGET).square().sum(1)).double().exp() ** 0.1 - 7)
    torch.testing.assert_close(_evolve()[0], _evolve(bent)[0], rtol=0, atol=0)


def test_a_prompts_ascent_is_its_own() -> None:
    both, rewards = _evolve()
    again, _ = _evolve()
    alone, reward = _evolve(seeds=(1,), null={name: value[1:] for name, value in NULL.items()})
    assert torch.equal(both["tokens"], again["tokens"])
    torch.testing.assert_close(both["tokens"][1:], alone["tokens"])
    torch.testing.assert_close(rewards[:, 1:], reward)


def test_a_value_that_is_not_finite_fails_the_run() -> None:
    with pytest.raises(NullTTAError, match="not finite"):
        _evolve(_terms(lambda x: x.sum(1) / 0))


def test_a_run_is_raised_by_cma_afresh_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[CMA] = []
    create = CMA.__init__
    monkeypatch.setattr(CMA, "__init__", lambda self, *sizes: made.append(self) or create(self, *sizes))
    monkeypatch.setattr("nulltta.algorithm.sampling.word_basis", lambda model, like: {"mean": torch.eye(3)})
    config = NullTTAConfig(
        num_inference_steps=5,
        inner_steps=(8, 8),
        guidance_scale=3.0,
        gradient="zeroth-order",
        zeroth_order_directions="cma",
        zeroth_order_radius=0.2,
    )
    prompts, seeds = ["red", "green"] * 4, list(range(8))
    result = align(Gaussian(), prompts, nearness, config=config, seed=seeds)
    still = align(Gaussian(), prompts, nearness, config=NullTTAConfig(
        num_inference_steps=5, inner_steps=(0, 0), guidance_scale=3.0), seed=seeds)  # fmt: skip
    assert result.problem.config.reward_weight == 50.0
    assert result.rewards.mean() > still.rewards.mean()
    assert [cma.generation for cma in made] == [8] * 8 * 5
    alone = align(Gaussian(), "green", nearness, config=config, seed=7)
    torch.testing.assert_close(result.null_text[7].values[-1], alone.null_text[0].values[-1])


def test_word_directions_are_principal_components_of_the_models_own_encodings() -> None:
    class Worded(Gaussian):
        def encode(self, prompts: Any, negatives: Any) -> Any:
            """Words differ along two axes of five, and sit far from the origin."""
            generator = torch.Generator().manual_seed(0)
            spread = torch.randn(len(prompts), 2, generator=generator) @ torch.eye(2, 5)
            return {"tokens": spread + 100.0, "mask": torch.ones(len(prompts), 5, dtype=torch.long)}, {}

    basis = word_basis(Worded(), ["a"] * 40, components=2)
    assert list(basis) == ["tokens"]
    torch.testing.assert_close(basis["tokens"] @ basis["tokens"].T, torch.eye(2))
    torch.testing.assert_close(basis["tokens"][:, 2:], torch.zeros(2, 3), atol=1e-5, rtol=0)
    with pytest.raises(NullTTAError, match="span fewer than 3"):
        word_basis(Worded(), ["a"] * 40, components=3)


def test_vectors_of_a_span_are_as_long_as_white_noise() -> None:
    coordinates = torch.randn((1, 20_000, R), generator=torch.Generator().manual_seed(0))
    vectors = SPAN.vectors(coordinates)["tokens"]
    assert vectors.shape == (1, 20_000, D)
    torch.testing.assert_close(vectors.square().sum(-1).mean(), torch.tensor(float(D)), rtol=0.02, atol=0)
    within = vectors @ SPAN.basis["tokens"].T @ SPAN.basis["tokens"]
    torch.testing.assert_close(within, vectors, rtol=0, atol=1e-4)
