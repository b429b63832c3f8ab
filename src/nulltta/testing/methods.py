"""What every method must do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch

from nulltta.alignment import align
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.testing.gaussian import Gaussian, nearness


class MethodContract:
    """Tests of a method, which a subclass provides as the fixture `method`: a (Problem) -> Stream, or its name.

    The method samples from `Gaussian` under the reward `nearness`; override the fixtures and attributes for others.

    Attributes:
        prompts, seeds: two prompts that the model knows, and their seeds.
        tolerance: the largest difference between a prompt's images alone and in a batch.
    """

    prompts: ClassVar[Sequence[str]] = ("red", "green")
    seeds: ClassVar[Sequence[int]] = (3, 1)
    tolerance: ClassVar[float] = 1e-5

    @pytest.fixture
    def method(self) -> Any:
        raise NotImplementedError("a subclass of MethodContract provides its method as a fixture of this name")

    @pytest.fixture
    def model(self) -> GuidedModel:
        return Gaussian()

    @pytest.fixture
    def reward(self) -> Any:
        return nearness

    @pytest.fixture
    def config(self) -> NullTTAConfig:
        """A short run: 3 steps, 1 to 2 inner steps, 2 candidates."""
        return NullTTAConfig(num_inference_steps=3, inner_steps=(1, 2), num_particles=2, guidance_scale=3.0)

    def test_its_result_is_complete(self, method: Any, model: Any, reward: Any, config: NullTTAConfig) -> None:
        found = align(model, list(self.prompts), reward, config=config, seed=list(self.seeds), method=method)
        assert found.images.shape == found.baseline.shape
        assert found.candidates.shape[0] == len(found.images) == 2
        assert bool(found.candidates.isfinite().all())
        torch.testing.assert_close(found.rewards, found.problem.reward(found.images, list(self.prompts)))
        indices = [step.index for step in found.trace]
        assert indices[0] == 0
        assert all(then in (now + 1, 0) for now, then in pairwise(indices))  # a second pass begins at 0 again
        for step in found.trace:
            assert step.inner_rewards.shape[1:] == step.selected.shape == step.kl.shape == (2,)
            assert step.candidate_rewards.dim() == 2
            assert step.preview is None

    def test_it_is_repeatable(self, method: Any, model: Any, reward: Any, config: NullTTAConfig) -> None:
        first, again = (align(model, self.prompts[1], reward, config=config, seed=1, method=method) for _ in range(2))
        assert torch.equal(first.candidates, again.candidates)
        assert torch.equal(first.rewards, again.rewards)

    def test_another_seed_gives_another_image(
        self, method: Any, model: Any, reward: Any, config: NullTTAConfig
    ) -> None:
        first, other = (align(model, self.prompts[1], reward, config=config, seed=i, method=method) for i in (1, 2))
        assert not torch.equal(first.images, other.images)

    def test_a_prompt_gives_alone_what_it_gives_in_a_batch(
        self, method: Any, model: Any, reward: Any, config: NullTTAConfig
    ) -> None:
        batch = align(model, list(self.prompts), reward, config=config, seed=list(self.seeds), method=method)
        for i in range(2):
            alone = align(model, self.prompts[i], reward, config=config, seed=self.seeds[i], method=method)
            torch.testing.assert_close(alone.candidates[0], batch.candidates[i], rtol=0, atol=self.tolerance)
