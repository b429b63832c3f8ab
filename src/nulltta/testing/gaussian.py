"""A diffusion model with known answers, for closed-form tests of methods: data ~ N(m, I), where the embedding is m."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from nulltta.contracts import Embedding, GuidedModel, NoiseStep


class Gaussian(GuidedModel):
    """The exact denoiser of data distributed as N(m, I), where the embedding is the mean m.

    Every marginal is N(√ᾱ·m, I), so ε(x, m) = √(1−ᾱ)·(x − √ᾱ·m) and x̂0 = √ᾱ·x + (1−ᾱ)·m. Latents and images are
    (3, 1, 1). The prompts it knows are "", "red" and "green", with means 0, (1, 0, 0) and (0, 1, 0).

    Attributes:
        with_gradient: the rows of `predict` that carried gradient so far.
        without_gradient: the rows of `predict` that carried none.
    """

    name = "gaussian"
    latent_shape = (3, 1, 1)

    def __init__(self) -> None:
        self.with_gradient = 0
        self.without_gradient = 0

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        means = {"": (0.0, 0.0, 0.0), "red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0)}
        cond, null = ({"mean": torch.tensor([means[word] for word in words])} for words in (prompts, negatives))
        return cond, null

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """Steps of equal length from ᾱ = 0.1 to ᾱ = 1; the sampling steps are the model's own diffusion steps."""
        alpha_bars = torch.linspace(0.1, 1.0, num_inference_steps + 1, dtype=torch.float64).tolist()
        steps = []
        for i, (now, then) in enumerate(pairwise(alpha_bars)):
            alpha = now / then
            steps.append(NoiseStep(num_inference_steps - i, now, then, (1 - alpha) / (2 * alpha * (1 - now))))
        return steps

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        if torch.is_grad_enabled() and (x.requires_grad or embedding["mean"].requires_grad):
            self.with_gradient += len(x)
        else:
            self.without_gradient += len(x)
        return math.sqrt(1 - step.alpha_bar) * (x - math.sqrt(step.alpha_bar) * embedding["mean"][..., None, None])

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        return (x - math.sqrt(1 - step.alpha_bar) * prediction) / math.sqrt(step.alpha_bar)

    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        now, then = step.alpha_bar, step.alpha_bar_previous
        std = step.eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        direction = math.sqrt(1 - then - std**2)
        return math.sqrt(then) * self.predict_x0(x, prediction, step) + direction * prediction, std

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        assert detail == "full"
        return x0


def nearness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return −‖x − (0.2, 0.4, 0.6)‖² of each image: a quadratic reward."""
    del prompts
    return -(images.flatten(1) - torch.tensor([0.2, 0.4, 0.6])).square().sum(1)
