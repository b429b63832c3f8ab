"""Asking a reward, and believing it only when its answer is one: a (B,) tensor of finite numbers, with a gradient
where one is needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue


def score(reward: Reward, images: Tensor, prompts: Sequence[str], *, allow_nan: bool = False) -> Tensor:
    """The reward of images (B, 3, H, W) for their B prompts: (B,) in float32.

    A video (B, F, 3, H, W) is scored frame by frame, and its score is the mean.

    Raises:
        NullTTAError: the reward returned another shape or type, or (unless `allow_nan`) a number that is not finite.
    """
    if images.dim() == 5:
        frames = [prompt for prompt in prompts for _ in range(images.shape[1])]
        return score(reward, images.flatten(0, 1), frames, allow_nan=allow_nan).view(images.shape[:2]).mean(1)
    values = reward(images, prompts)
    if not isinstance(values, Tensor):
        raise InvalidValue(
            f"reward '{reward.name}' returned {type(values).__name__}: it must return a tensor of shape (B,)"
        )
    if values.shape != (len(prompts),):
        raise InvalidValue(
            f"reward '{reward.name}' returned shape {tuple(values.shape)} for {len(prompts)} images: "
            f"it must return one score an image, shape ({len(prompts)},)"
        )
    values = values.float().to(images.device)
    if not allow_nan and not bool(torch.isfinite(values).all()):
        culprit = prompts[int((~torch.isfinite(values)).nonzero()[0])]
        raise InvalidValue(
            f"reward '{reward.name}' is not finite for '{culprit}': run the model and the reward in float32, "
            "or lower reward_weight or learning_rate"
        )
    return values


def require_differentiable(reward: Reward, instead: str) -> None:
    """Refuse a reward that says it has no gradient; instead: what the caller can do."""
    if not reward.differentiable:
        parts = [part for part in reward.without_gradient if part != reward.name]
        which = f" (its part {', '.join(map(repr, parts))} has none)" if parts else ""
        raise InvalidValue(f"reward '{reward.name}' gives no gradient{which}: {instead}")


def require_graph(reward: Reward, values: Tensor) -> None:
    """Refuse scores (B,) that do not depend on their images: they would be optimised as a constant."""
    if not values.requires_grad:
        raise InvalidValue(
            f"reward '{reward.name}' gives no gradient (it detaches its input, or works without one): "
            "write it in differentiable torch operations on the images"
        )


def require_slope(reward: Reward, gradient: Tensor) -> None:
    """Refuse a reward whose first gradient is zero for every prompt: it must not pass for an optimised one."""
    if not bool(gradient.any()):
        raise InvalidValue(
            f"reward '{reward.name}' gives no gradient: it is zero for every prompt (rounded, thresholded or "
            "saturated?); write it in smooth torch operations on the images"
        )


def greedy(scores: Tensor, generators: Sequence[torch.Generator] = ()) -> Tensor:  # noqa: ARG001 - draws nothing
    """The best of each row; a tie goes to the first, NaN loses to everything."""
    ranked = torch.where(torch.isnan(scores), torch.full_like(scores, -torch.inf), scores)
    return ranked.argmax(dim=1)


def pick(values: Tensor, indices: Tensor) -> Tensor:
    """values (B, K, ...) at indices (B,) -> (B, ...)."""
    return values[torch.arange(len(values), device=values.device), indices]
