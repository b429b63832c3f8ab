"""What every model must do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from nulltta.algorithm.embeddings import transform
from nulltta.alignment import align
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, NoiseStep


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return the mean of each image's, or video's, pixels."""
    del prompts
    return images.flatten(1).mean(1)


class ModelContract:
    """Tests of a `GuidedModel`, which a subclass provides as the fixture `model` (scope "class" saves time).

    Attributes:
        prompts, negatives: two prompts that the model tells apart, and their negative prompts.
    """

    prompts: ClassVar[Sequence[str]] = ("a cat", "two red dogs")
    negatives: ClassVar[Sequence[str]] = ("", "ugly")

    @pytest.fixture
    def model(self) -> GuidedModel:
        raise NotImplementedError("a subclass of ModelContract provides its model as a fixture of this name")

    @pytest.fixture
    def learning_rate(self) -> float | None:
        """The learning rate of the short alignment; None, which is the default, for that of the configuration."""
        return None

    def levels(self, step: Any) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the factors (s, n) of x0 and ε in a latent x = s·x0 + n·ε, at a step's level and at the next.

        Default: √ᾱ and √(1−ᾱ). A flow, whose factors are 1−σ and σ, overrides this.
        """
        now, then = step.alpha_bar, step.alpha_bar_previous
        return (math.sqrt(now), math.sqrt(1 - now)), (math.sqrt(then), math.sqrt(1 - then))

    def test_it_declares_a_guided_model(self, model: Any) -> None:
        assert isinstance(model, GuidedModel)
        assert isinstance(model.name, str)
        assert latents(model, 3).shape == (3, *model.latent_shape)

    def test_embeddings_are_named_float32_tensors_with_one_row_per_prompt(self, model: Any) -> None:
        cond, null = model.encode(self.prompts, self.negatives)
        for embedding in (cond, null):
            assert all(len(tensor) == 2 and not tensor.requires_grad for tensor in embedding.values())
            assert {t.dtype for t in embedding.values() if t.is_floating_point()} == {torch.float32}
        assert list(cond) == list(null)

    def test_a_prompt_is_encoded_alone_as_in_a_batch(self, model: Any) -> None:
        x, step = latents(model, 1), model.schedule(4)[1]
        batch = model.encode(self.prompts, self.negatives)
        alone = model.encode(self.prompts[:1], self.negatives[:1])
        for both, one in zip(batch, alone, strict=True):
            first = transform(both, lambda tensor: tensor[:1])
            torch.testing.assert_close(model.predict(x, step, first), model.predict(x, step, one), rtol=0, atol=1e-5)

    def test_predict_is_one_branch_and_its_rows_are_independent(self, model: Any) -> None:
        cond, null = model.encode(self.prompts, self.negatives)
        x, step = latents(model, 2), model.schedule(4)[1]
        both = model.predict(x, step, cond)
        assert both.shape == x.shape
        assert both.dtype == torch.float32
        for i in range(2):
            alone = model.predict(x[i : i + 1], step, transform(cond, partial(_row, i)))
            torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-5)
        assert float((both - model.predict(x, step, null)).abs().max()) > 1e-4  # the text matters

    def test_predict_carries_gradient_to_every_optimised_tensor(self, model: Any) -> None:
        _, null = model.encode(self.prompts, self.negatives)
        leaves = {name: t.clone().requires_grad_() for name, t in null.items() if t.is_floating_point()}
        prediction = model.predict(latents(model, 2), model.schedule(4)[1], {**null, **leaves})
        for gradient in torch.autograd.grad(prediction.square().sum(), list(leaves.values())):
            assert bool((gradient.flatten(1).abs().sum(1) > 0).all())

    def test_the_schedule_falls_from_noise_to_data_with_finite_weights(self, model: Any) -> None:
        steps = model.schedule(10)
        assert len(steps) == 10
        assert all(0 < step.consistency < float("inf") for step in steps)
        assert all(0 <= step.alpha_bar < step.alpha_bar_previous <= 1 for step in steps)
        assert all(a.alpha_bar_previous == pytest.approx(b.alpha_bar) for a, b in itertools.pairwise(steps))
        assert [step.timestep for step in steps] == sorted((step.timestep for step in steps), reverse=True)

    @pytest.mark.parametrize("index", [0, 4, 9])
    @pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
    def test_a_step_is_the_gaussian_posterior_at_its_share_of_the_deviation(
        self, model: Any, index: int, eta: float
    ) -> None:
        """In closed form, from x = s·x0 + n·ε at the step's level and x' = s'·x0 + n'·ε at the next.

        Given x0, x = a·x' + N(0, q) with a = s/s' and q = n² − a²n'², so the posterior variance of x' is n'²q/n².
        A share η of its deviation is drawn anew, and the rest of the level n' stays in the direction of ε.
        """
        step: NoiseStep = replace(model.schedule(10)[index], eta=eta)
        x, prediction = latents(model, 2), latents(model, 2, seed=1)
        (signal, noise), (then_signal, then_noise) = self.levels(step)
        assert signal**2 / (signal**2 + noise**2) == pytest.approx(step.alpha_bar, abs=1e-6)
        fresh = noise**2 - (signal / then_signal * then_noise) ** 2
        expected = eta * then_noise * math.sqrt(fresh) / noise
        x0 = model.predict_x0(x, prediction, step)
        eps = (x - signal * x0) / noise
        kept = then_signal * x0 + math.sqrt(max(0.0, then_noise**2 - expected**2)) * eps
        mean, std = model.step_distribution(x, prediction, step)
        size = max(1.0, float(x0.abs().max()))  # near ᾱ = 0, x̂0 is large and a difference of larger numbers
        assert std == pytest.approx(expected, rel=1e-4, abs=1e-5)
        torch.testing.assert_close(mean, kept, rtol=1e-4, atol=2e-5 * size)

    def test_images_lie_in_the_unit_range_and_carry_gradient(self, model: Any) -> None:
        x0 = latents(model, 2).requires_grad_()
        images = model.decode(x0)
        assert images.shape[0] == 2
        assert images.shape[-3] == 3
        assert images.min() >= 0
        assert images.max() <= 1
        (gradient,) = torch.autograd.grad(images.sum(), x0)
        assert bool((gradient.flatten(1).abs().sum(1) > 0).all())

    def test_the_pipelines_layout_is_converted_back(self, model: Any) -> None:
        x = latents(model, 2)
        assert torch.equal(model.from_pipeline(model.to_pipeline(x)), x)

    def test_alignment_raises_a_simple_reward_in_three_steps(self, model: Any, learning_rate: float | None) -> None:
        config = NullTTAConfig(num_inference_steps=3, inner_steps=(4, 4), num_particles=2, guidance_scale=4.0)
        if learning_rate is not None:
            config = replace(config, learning_rate=learning_rate)
        result = align(model, list(self.prompts), brightness, config=config, seed=[1, 2])
        assert bool((result.rewards > result.baseline_rewards).all())
        first = result.trace[0]
        assert bool((first.inner_rewards[-1] > first.inner_rewards[0]).all())
        assert bool((first.kl > 0).all())


def _row(i: int, tensor: Tensor) -> Tensor:
    return tensor[i : i + 1]


def latents(model: GuidedModel, batch: int, seed: int = 0) -> Tensor:
    """Draw a model's initial latents from a seed."""
    return model.initial_latents(batch, torch.Generator().manual_seed(seed))
