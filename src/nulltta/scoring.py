"""Evaluating a reward and checking its answer: (B,) finite numbers, with a gradient where one is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from nulltta.contracts import CleanLatents, Reward
from nulltta.errors import InvalidValue, NullTTAError, RewardError, first_line, is_out_of_memory

T = TypeVar("T")


def score(reward: Reward, images: Tensor, prompts: Sequence[str], *, allow_nan: bool = False) -> Tensor:
    """Score images (B, 3, H, W) for their B prompts: (B,) in float32, on the images' device.

    A video (B, F, 3, H, W) is scored frame by frame, and its score is the mean.

    Raises:
        RewardError: if the reward raises an exception, returns something other than a tensor of shape (B,) or, unless
            `allow_nan`, a number that is not finite.
    """
    if images.dim() == 5:
        frames = [prompt for prompt in prompts for _ in range(images.shape[1])]
        return score(reward, images.flatten(0, 1), frames, allow_nan=allow_nan).view(images.shape[:2]).mean(1)
    return _checked(reward, partial(reward, images, prompts), prompts, images.device, allow_nan)


def score_latents(reward: Reward, clean: CleanLatents, prompts: Sequence[str], *, allow_nan: bool = False) -> Tensor:
    """Score N clean latents for their prompts: (N,) in float32, on the latents' device.

    They are decoded and their images scored, unless the reward reads latents.

    Raises:
        RewardError: as `score`.
    """
    if not reward.reads_latents:
        return score(reward, clean.images, prompts, allow_nan=allow_nan)
    return _checked(reward, partial(reward.of_latents, clean, prompts), prompts, clean.x0.device, allow_nan)


def score_finished(reward: Reward, images: Tensor, latents: Tensor | None, prompts: Sequence[str]) -> Tensor:
    """Score images (B, 3, H, W) that were decoded from `latents` (B, C, h, w), where these are known: (B,).

    Raises:
        InvalidValue: if the reward reads latents and there are none.
        RewardError: as `score`.
    """
    if latents is None:
        return score(reward, images, prompts)
    return score_latents(reward, CleanLatents(latents, None, lambda _: images), prompts)


def _checked(
    reward: Reward, evaluate: Callable[[], object], prompts: Sequence[str], device: torch.device, allow_nan: bool
) -> Tensor:
    """Evaluate a reward and return its scores, checked, in float32 on a device."""
    values = named(reward.name, evaluate)
    if not isinstance(values, Tensor):
        raise RewardError(
            f"reward '{reward.name}' returned {type(values).__name__}: it must return a tensor of shape (B,)"
        )
    if values.shape != (len(prompts),):
        raise RewardError(
            f"reward '{reward.name}' returned shape {tuple(values.shape)} for {len(prompts)} images: "
            f"it must return one score per image, shape ({len(prompts)},)"
        )
    values = values.float().to(device)
    if not allow_nan and not bool(torch.isfinite(values).all()):
        culprit = prompts[int((~torch.isfinite(values)).nonzero()[0])]
        raise RewardError(
            f"reward '{reward.name}' is not finite for '{culprit}': run the model and the reward in float32, or lower "
            "the reward's weight (reward_weight) or the learning rate (learning_rate)"
        )
    return values


def as_measure(reward: Reward) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """Return a reward as a measure, (images, prompts) -> (B,), whose answers are checked as `score` does."""
    return partial(score, reward)


def named(name: str, evaluate: Callable[[], T]) -> T:
    """Evaluate the reward of a name; exceptions other than this package's own and out of memory name it in an error.

    Raises:
        RewardError: if it raises such an exception.
    """
    try:
        return evaluate()
    except NullTTAError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise RewardError(f"reward '{name}' failed: {reason}") from error


def require_pictures(reward: Reward, what: str) -> None:
    """Refuse a reward that reads latents where there are only pictures, before any work.

    Args:
        reward: the reward.
        what: what has only pictures, for the message.

    Raises:
        InvalidValue: if it reads latents.
    """
    if reward.reads_latents:
        raise InvalidValue(f"reward '{reward.name}' reads a model's latents, and {what} has only pictures")


def require_differentiable(reward: Reward, instead: str) -> None:
    """Refuse a reward that declares that it has no gradient.

    Args:
        reward: the reward.
        instead: what the caller can do instead, for the message.

    Raises:
        InvalidValue: if it is not differentiable.
    """
    if not reward.differentiable:
        parts = [part for part in reward.without_gradient if part != reward.name]
        which = f" (its part {', '.join(map(repr, parts))} has none)" if parts else ""
        raise InvalidValue(f"reward '{reward.name}' gives no gradient{which}: {instead}")


def require_graph(reward: Reward, values: Tensor) -> None:
    """Refuse scores (B,) that do not depend on their images: they would be optimised as a constant.

    Raises:
        RewardError: if the scores carry no gradient.
    """
    if not values.requires_grad:
        raise RewardError(
            f"reward '{reward.name}' gives no gradient (it detaches its input, or works without one): "
            "write it in differentiable torch operations on the images"
        )


def require_slope(reward: Reward, gradient: Tensor) -> None:
    """Refuse a reward whose first gradient is zero for every prompt: it must not pass for an optimised one.

    Raises:
        RewardError: if the gradient is zero.
    """
    if not bool(gradient.any()):
        raise RewardError(
            f"reward '{reward.name}' gives no gradient: it is zero for every prompt (rounded, thresholded or "
            "saturated?); write it in smooth torch operations on the images"
        )


def greedy(scores: Tensor) -> Tensor:
    """Return the index of the best of each row, (B, K) -> (B,); a tie goes to the first, NaN loses to everything."""
    ranked = torch.where(torch.isnan(scores), torch.full_like(scores, -torch.inf), scores)
    return ranked.argmax(dim=1)


def pick(values: Tensor, indices: Tensor) -> Tensor:
    """Return values (B, K, ...) at indices (B,), (B, ...)."""
    return values[torch.arange(len(values), device=values.device), indices]
