"""What every reward must do, and every reward that reads latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from nulltta.contracts import CleanLatents, NoiseStep, Reward
from nulltta.errors import InvalidValue
from nulltta.rewards import load
from nulltta.testing.images import smooth_images


class RewardContract:
    """Tests of a reward, which a subclass provides as the fixture `reward`: a `Reward`, or anything `load` accepts.

    Attributes:
        prompts: the prompts of three test images.
        size: height and width of the test images.
    """

    prompts: ClassVar[Sequence[str]] = ("a cat", "two red dogs", "")
    size: ClassVar[tuple[int, int]] = (64, 64)

    @pytest.fixture
    def reward(self) -> Any:
        raise NotImplementedError("a subclass of RewardContract provides its reward as a fixture of this name")

    @pytest.fixture
    def loaded(self, reward: Any) -> Reward:
        return load(reward, device="cpu") if isinstance(reward, str) else load(reward)

    @pytest.fixture
    def images(self) -> Tensor:
        """Three smooth, coloured images, (3, 3, H, W)."""
        return smooth_images(3, self.size)

    def test_it_gives_one_finite_score_per_image(self, loaded: Reward, images: Tensor) -> None:
        scores = loaded(images, list(self.prompts))
        assert isinstance(loaded.name, str)
        assert scores.shape == (3,)
        assert scores.is_floating_point()
        assert bool(scores.isfinite().all())

    def test_it_is_repeatable_and_leaves_the_images_alone(self, loaded: Reward, images: Tensor) -> None:
        before = images.clone()
        first = loaded(images, list(self.prompts))
        assert torch.equal(loaded(images, list(self.prompts)), first)
        assert torch.equal(images, before)

    def test_an_image_scores_alone_as_in_a_batch(self, loaded: Reward, images: Tensor) -> None:
        batch = loaded(images, list(self.prompts))
        alone = torch.cat([loaded(images[i : i + 1], [self.prompts[i]]) for i in range(3)])
        torch.testing.assert_close(alone, batch, rtol=1e-4, atol=1e-5)

    def test_its_gradient_reaches_the_images_or_it_names_the_parts_without(
        self, loaded: Reward, images: Tensor
    ) -> None:
        leaf = images.clone().requires_grad_()
        assert bool(loaded.without_gradient) is not loaded.differentiable
        if loaded.differentiable:
            scores = loaded(leaf, list(self.prompts))
            (gradient,) = torch.autograd.grad(scores.sum(), leaf)
            assert bool(gradient.isfinite().all())
            assert bool((gradient.flatten(1).abs().sum(1) > 0).all())

    def test_its_gradient_is_finite_on_flat_images(self, loaded: Reward) -> None:
        """A black, a white and a grey one: a square root or a norm often has no gradient there."""
        if loaded.differentiable:
            flat = torch.tensor([0.0, 1.0, 0.5])[:, None, None, None].expand(3, 3, *self.size).clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loaded(flat, list(self.prompts)).sum(), flat)
            assert bool(gradient.isfinite().all())


class LatentRewardContract:
    """Tests of a reward that reads latents, which a subclass provides as the fixture `reward`.

    Attributes:
        prompts: the prompts of three latents.
        shape: the shape of one latent, (C, h, w).
    """

    prompts: ClassVar[Sequence[str]] = ("a cat", "two red dogs", "")
    shape: ClassVar[tuple[int, ...]] = (4, 8, 8)

    @pytest.fixture
    def reward(self) -> Any:
        raise NotImplementedError("a subclass of LatentRewardContract provides its reward as a fixture of this name")

    @pytest.fixture
    def latents(self) -> Tensor:
        """Three latents of standard normal noise, (3, C, h, w)."""
        return torch.randn((3, *self.shape), generator=torch.Generator().manual_seed(0))

    @pytest.fixture(params=[0.1, 0.9, None], ids=["noisy", "nearly clean", "clean"])
    def step(self, request: pytest.FixtureRequest) -> NoiseStep | None:
        """The noise level at which the latents were estimated."""
        return request.param and NoiseStep(1000 * (1 - request.param), request.param, 1.0, 1.0)

    def test_it_gives_one_finite_score_per_latent_without_decoding(
        self, reward: Reward, latents: Tensor, step: NoiseStep | None
    ) -> None:
        clean = CleanLatents(latents, step, _refuse_to_decode)
        scores = reward.of_latents(clean, list(self.prompts))
        assert reward.reads_latents
        assert isinstance(reward.name, str)
        assert scores.shape == (3,)
        assert bool(scores.isfinite().all())
        assert torch.equal(reward.of_latents(clean, list(self.prompts)), scores)

    def test_a_latent_scores_alone_as_in_a_batch(self, reward: Reward, latents: Tensor, step: NoiseStep | None) -> None:
        def scores(rows: slice) -> Tensor:
            return reward.of_latents(CleanLatents(latents[rows], step, _refuse_to_decode), list(self.prompts)[rows])

        alone = torch.cat([scores(slice(i, i + 1)) for i in range(3)])
        torch.testing.assert_close(alone, scores(slice(3)), rtol=1e-4, atol=1e-5)

    def test_its_gradient_reaches_the_latents(self, reward: Reward, latents: Tensor, step: NoiseStep | None) -> None:
        if reward.differentiable:
            leaf = latents.clone().requires_grad_()
            scores = reward.of_latents(CleanLatents(leaf, step, _refuse_to_decode), list(self.prompts))
            (gradient,) = torch.autograd.grad(scores.sum(), leaf)
            assert bool(gradient.isfinite().all())
            assert bool((gradient.flatten(1).abs().sum(1) > 0).all())

    def test_pictures_alone_are_refused(self, reward: Reward) -> None:
        with pytest.raises(InvalidValue, match="cannot score pictures alone"):
            reward(torch.zeros(1, 3, 64, 64), [""])


def _refuse_to_decode(latents: Tensor) -> Tensor:
    raise AssertionError(f"a reward of latents decoded {len(latents)} of them")
