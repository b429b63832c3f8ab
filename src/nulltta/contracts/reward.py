"""The contract of a reward: pictures, or a model's clean latents, and a score for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from nulltta.contracts.model import GuidedModel, NoiseStep
from nulltta.errors import InvalidValue


@dataclass(frozen=True)
class CleanLatents:
    """Clean latents, or estimates of them, as a reward sees them.

    Attributes:
        x0: (N, C, h, w), x̂0.
        step: the noise level at which they were estimated; None for the sampler's last latents.
        decode: latents (N, C, h, w) -> images (N, 3, H, W) in [0, 1].
    """

    x0: Tensor
    step: NoiseStep | None
    decode: Callable[[Tensor], Tensor]

    @cached_property
    def images(self) -> Tensor:
        """(N, 3, H, W), decoded when they are first read."""
        return self.decode(self.x0)

    @property
    def decoded(self) -> bool:
        """Whether the images have been read."""
        return "images" in vars(self)


class Reward(ABC):
    """A measure of image quality; higher is better.

    A plain callable (images, prompts) -> (B,) is accepted wherever a reward is: `nulltta.rewards.load` wraps it.

    Attributes:
        name: the name under which scores are reported.
        differentiable: whether scores carry a gradient with respect to the images.
        reads_latents: whether it scores a model's latents by `of_latents`, so that they need not be decoded.
    """

    name: str
    differentiable: bool = True
    reads_latents: bool = False

    @abstractmethod
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score images (B, 3, H, W) in [0, 1] for their B prompts: (B,)."""

    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:
        """Score N clean latents for their prompts: (N,). Default: the score of their images.

        The score of a video is the mean over its frames.
        """
        images = clean.images
        if images.dim() == 4:
            return self(images, prompts)
        frames = [prompt for prompt in prompts for _ in range(images.shape[1])]
        return self(images.flatten(0, 1), frames).view(images.shape[:2]).mean(1)

    def require_model(self, model: GuidedModel) -> None:  # noqa: B027 - optional
        """Refuse a model whose latents the reward cannot read. Default: accept every model.

        Raises:
            DoesNotFit: if the reward was made for another model's latents.
        """

    @property
    def without_gradient(self) -> tuple[str, ...]:
        """The names of the parts that have no gradient; empty if the reward is differentiable."""
        return () if self.differentiable else (self.name,)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that the reward runs, for estimates of memory; empty for a formula."""
        return ()


class LatentReward(Reward):
    """A reward that scores a model's clean latents at a noise level, without decoding them.

    The decoder is most of an inner step at real sizes. A subclass defines `name` and `of_latents`, and refuses in
    `require_model` the models whose latents mean something else to it. Pictures alone cannot be scored.
    """

    reads_latents = True

    @abstractmethod
    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:
        """Score N clean latents `clean.x0` (N, C, h, w) for their prompts, with gradient: (N,).

        Reading `clean.images` is allowed, and decodes them.
        """

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:  # noqa: ARG002 - refuses
        """Refuse pictures.

        Raises:
            InvalidValue: always.
        """
        raise InvalidValue(
            f"reward '{self.name}' reads a model's latents and cannot score pictures alone: optimise it, and measure "
            "pictures by another reward"
        )
