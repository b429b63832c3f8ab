"""The contract of rewards, on those that need no download, alone and combined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from torch import Tensor

from nulltta.testing import LatentRewardContract, RewardContract

from ..rewards.formulas import FORMULAS
from ..rewards.latents import Redness


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


class TestRewards(RewardContract):
    @pytest.fixture(
        params=[*FORMULAS, "brightness - 0.5*colourfulness", "z(brightness, 0.4, 0.1) + jpeg", redness],
        ids=lambda reward: getattr(reward, "__name__", reward),
    )
    def reward(self, request: pytest.FixtureRequest) -> Any:
        return request.param


class TestLatentRewards(LatentRewardContract):
    @pytest.fixture
    def reward(self) -> Redness:
        return Redness()
