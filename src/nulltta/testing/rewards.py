"""What every reward must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.rewards import load


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
        coarse = torch.rand((3, 3, 5, 5), generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(coarse, self.size, mode="bicubic").clamp(0, 1)

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
