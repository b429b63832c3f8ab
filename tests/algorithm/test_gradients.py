"""Gradient estimators against closed forms: autograd is exact, zeroth order approaches it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.gradients import ESTIMATORS, ZerothOrder, autograd, scaled_autograd, white_directions
from nulltta.algorithm.memory import MicroBatch
from nulltta.algorithm.objective import Terms
from nulltta.contracts import Embedding
from nulltta.rewards.compose import Standardised
from nulltta.testing import Gaussian, nearness

from .objectives import MOVED, Rowwise, gaussian_objective

B, D = 2, 6
TARGET = torch.linspace(-1, 1, D)


@Rowwise
def _quadratic(null: Embedding) -> Terms:
    """J = −½‖φ' − target‖² + Σ(φ')³/3, whose gradient is target − φ' + φ'²."""
    x = null["tokens"]
    value = -0.5 * (x - TARGET).square().sum(1) + x.pow(3).sum(1) / 3
    return Terms(value, value, torch.zeros_like(value))


def _generators(batch: int = B, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + b) for b in range(batch)]


NULL = {"tokens": torch.randn(B, D, generator=torch.Generator().manual_seed(5))}
EXACT = TARGET - NULL["tokens"] + NULL["tokens"].square()


def test_autograd_is_the_gradient() -> None:
    terms, gradient = autograd(_quadratic, NULL)
    torch.testing.assert_close(gradient["tokens"], EXACT)
    torch.testing.assert_close(terms.value, _quadratic(NULL).value)


def test_four_forward_differences_are_the_published_formula() -> None:
    terms, gradient = ZerothOrder(4, 0.02)(_quadratic, NULL, _generators())
    for b, generator in enumerate(_generators()):
        one = {"tokens": NULL["tokens"][b : b + 1]}
        expected = torch.zeros(D)
        for v in torch.randn((4, D), generator=generator):
            moved = {"tokens": one["tokens"] + 0.02 * v}
            expected += (_quadratic(moved).value - _quadratic(one).value) * v / (4 * 0.02)
        torch.testing.assert_close(gradient["tokens"][b], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms.value, _quadratic(NULL).value)


def test_many_directions_approach_the_gradient() -> None:
    _, gradient = ZerothOrder(20_000, 1e-3, MicroBatch())(_doubled, _as_double(NULL), _generators())
    cosine = torch.cosine_similarity(gradient["tokens"].float(), EXACT)
    assert cosine.min() > 0.999
    torch.testing.assert_close(gradient["tokens"].float(), EXACT, rtol=0.05, atol=0.1)


@Rowwise
def _doubled(null: Embedding) -> Terms:
    x = null["tokens"]
    value = -0.5 * (x - TARGET.double()).square().sum(1) + x.pow(3).sum(1) / 3
    return Terms(value, value, torch.zeros_like(value))


def _as_double(null: Embedding) -> Embedding:
    return {name: value.double() for name, value in null.items()}


def test_a_prompts_directions_do_not_depend_on_its_batch() -> None:
    both = white_directions(NULL, _generators(), 4)["tokens"]
    second = {"tokens": NULL["tokens"][1:]}
    alone = white_directions(second, _generators(1, seed=1), 4)["tokens"]
    assert both.shape == (B, 4, D)
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0], both[1])


def test_integer_tensors_are_not_moved() -> None:
    null = {**NULL, "mask": torch.ones(B, 3, dtype=torch.bool)}
    seen = []

    @Rowwise
    def objective(moved: Embedding) -> Terms:
        seen.append(moved["mask"])
        return _quadratic(moved)

    _, gradient = ZerothOrder(2, 0.1)(objective, null, _generators())
    assert torch.cat(seen).all()
    assert gradient.keys() == NULL.keys()


def test_directions_share_batches_of_eight_rows_with_the_same_result() -> None:
    counted = Rowwise(_quadratic)
    _, together = ZerothOrder(8, 0.02)(counted, NULL, _generators())
    _, apart = ZerothOrder(8, 0.02, MicroBatch(1))(_quadratic, NULL, _generators())
    assert counted.rows == [8, 8, 2]  # q + 1 evaluations of 2 prompts
    torch.testing.assert_close(together, apart)


def test_an_objective_at_rows_is_the_objective_of_each() -> None:
    objective = gaussian_objective(conventions="exact")
    rows = {"mean": torch.stack([MOVED["mean"], MOVED["mean"] + 0.1], dim=1).flatten(0, 1)}
    many = objective.at(torch.tensor([0, 0, 1, 1]))(rows)
    for part, first, second in zip(
        many, objective(MOVED), objective({"mean": MOVED["mean"] + 0.1}), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(part.view(2, 2), torch.stack([first, second], dim=1))


def test_zeroth_order_approaches_autograd_on_the_whole_objective() -> None:
    objective = gaussian_objective(reward_weight=5.0, kl_weight=0.3, prior_variance=0.2)
    _, exact = autograd(objective, MOVED)
    _, estimated = ZerothOrder(4000, 1e-2)(objective, MOVED, _generators())
    assert torch.cosine_similarity(estimated["mean"], exact["mean"]).min() > 0.99


def _rounded(images: Tensor, prompts: Any) -> Tensor:
    """A staircase, whose gradient is zero everywhere."""
    return (nearness(images, prompts) * 50).round() / 50


_rounded.differentiable = False  # type: ignore[attr-defined]


def test_a_reward_without_gradient_is_raised_by_zeroth_order() -> None:
    config = NullTTAConfig(
        num_inference_steps=5,
        inner_steps=(8, 8),
        guidance_scale=3.0,
        learning_rate=0.05,
        zeroth_order_radius=0.2,
        zeroth_order_directions="white",
    )
    prompts = ["red", "green"] * 4
    result = align(Gaussian(), prompts, _rounded, config=config, seed=list(range(8)))
    assert result.problem.config.gradient == "zeroth-order"
    assert result.problem.config.reward_weight == 50.0
    still = align(Gaussian(), prompts, _rounded, config=replace(config, inner_steps=(0, 0)), seed=list(range(8)))
    assert result.rewards.mean() > still.rewards.mean() > result.baseline_rewards.mean()


def test_a_zeroth_order_result_does_not_depend_on_the_batch() -> None:
    config = NullTTAConfig(
        num_inference_steps=3, inner_steps=(2, 2), guidance_scale=3.0, zeroth_order_directions="white"
    )
    both = align(Gaussian(), ["red", "green"], _rounded, config=config, seed=[3, 4])
    alone = align(Gaussian(), "green", _rounded, config=config, seed=4)
    torch.testing.assert_close(both.null_text[1].values[-1], alone.null_text[0].values[-1])


def test_a_sum_with_a_part_without_gradient_is_not_differentiated() -> None:
    config = NullTTAConfig(num_inference_steps=2, guidance_scale=3.0, gradient="autograd")
    with pytest.raises(NullTTAError, match=r"'brightness \+ 0.1\*jpeg' gives no gradient \(its part 'jpeg' has none"):
        align(Gaussian(), "red", "brightness + 0.1*jpeg", config=config)


def test_components_are_reported_and_z_is_measured_on_plain_samples() -> None:
    config = NullTTAConfig(num_inference_steps=3, inner_steps=(1, 1), guidance_scale=3.0)
    result = align(
        Gaussian(), ["red", "green", "red"], "z(brightness) + 0.5*colourfulness", config=config, seed=[0, 1, 9]
    )
    assert list(result.reward_components) == list(result.baseline_components) == ["brightness", "colourfulness"]
    torch.testing.assert_close(result.reward_components["brightness"], result.images.mean((1, 2, 3)))
    torch.testing.assert_close(result.baseline_components["brightness"], result.baseline.mean((1, 2, 3)))
    (_, measured), _ = result.problem.reward.terms  # type: ignore[attr-defined]
    assert isinstance(measured, Standardised)
    samples = align(Gaussian(), ["red"] * 8, "brightness", config=config, method="plain", seed=list(range(8))).rewards
    assert isinstance(measured.mean, dict)
    assert isinstance(measured.deviation, dict)
    assert measured.mean["red"] == pytest.approx(samples.mean().item(), rel=1e-5)
    assert measured.deviation["red"] == pytest.approx(samples.std(correction=0).item(), rel=1e-5)
    alone = align(Gaussian(), "green", "z(brightness) + 0.5*colourfulness", config=config, seed=1)
    torch.testing.assert_close(result.rewards[1:2], alone.rewards)


def test_a_single_reward_is_its_only_component() -> None:
    config = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), guidance_scale=3.0)
    result = align(Gaussian(), "red", nearness, config=config)
    assert list(result.reward_components) == ["nearness"]
    assert result.reward_components["nearness"] is result.rewards


@pytest.mark.parametrize(("directions", "points"), [("white", 5), ("cma", 4)])
def test_a_run_evaluates_several_directions_in_one_batch(
    directions: Any, points: int, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nulltta.algorithm.objective import Objective

    rows: list[int] = []
    at = Objective.at
    monkeypatch.setattr(Objective, "at", lambda self, some: rows.append(len(some)) or at(self, some))
    config = NullTTAConfig(
        num_inference_steps=2, inner_steps=(1, 1), num_particles=1, gradient="zeroth-order",
        zeroth_order_directions=directions,
    )  # fmt: skip
    align(model, "a cat", "brightness", config=config)
    assert rows == [points, points]


def test_small_gradients_survive_float16_and_large_ones_do_not_overflow() -> None:
    """A gradient of 1e-7 would be zero in float16, and one that overflows at S = 2¹² is computed with a smaller S."""
    slopes = torch.tensor([1e-8, 1e-3, 30.0])[:, None]

    def through_half(null: Embedding) -> Terms:
        value = (null["tokens"] * 1.0).half().float().mul(slopes).sum(1)  # its gradient passes float16 on the way
        return Terms(value, value, torch.zeros_like(value))

    null = {"tokens": torch.ones(3, 4)}
    plain = autograd(through_half, null)[1]["tokens"]
    assert bool((plain[0] == 0).all())
    found = scaled_autograd(through_half, null)[1]["tokens"]
    torch.testing.assert_close(found, slopes.expand(3, 4), rtol=2e-3, atol=0)


def test_a_float16_model_is_optimised_with_scaled_gradients() -> None:
    class Half(Gaussian):
        dtype = torch.float16

    model = Half()
    assert ESTIMATORS["autograd"](NullTTAConfig(), Gaussian()) is autograd
    assert ESTIMATORS["autograd"](NullTTAConfig(), model) is scaled_autograd
