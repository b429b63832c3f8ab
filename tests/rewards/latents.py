"""Rewards that read latents, and a model that counts how often it decodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import CleanLatents, GuidedModel, LatentReward, ModelWrapper, Reward
from nulltta.errors import DoesNotFit


class Redness(LatentReward):
    """The first channel's mean; not of latents with five channels."""

    name = "redness"

    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:
        assert len(clean.x0) == len(prompts)
        return clean.x0[:, 0].mean((1, 2))

    def require_model(self, model: GuidedModel) -> None:
        if model.latent_shape[0] == 5:
            raise DoesNotFit(f"reward 'redness' does not read latents of 5 channels, which '{model.name}' has")


class Failing(Redness):
    name = "failing"

    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:
        raise ZeroDivisionError("in the reward")


class Looking(LatentReward):
    """Another reward's score, of images that it decodes itself."""

    def __init__(self, reward: Reward) -> None:
        self.reward, self.name = reward, reward.name

    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:
        return self.reward(clean.images, prompts)


class Direct(LatentReward):
    """Another reward's score, given the latents for images; the same where the model's decoder changes nothing."""

    def __init__(self, reward: Reward) -> None:
        self.reward, self.name = reward, reward.name
        self.levels: list[float | None] = []

    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:
        self.levels.append(None if clean.step is None else clean.step.timestep)
        return self.reward(clean.x0, prompts)


class Counting(ModelWrapper):
    """Counts the calls of the decoder, with gradient and without."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.decodings = Counter[str]()

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        self.decodings["with" if torch.is_grad_enabled() and x0.requires_grad else "without"] += 1
        return super().decode(x0, detail)
