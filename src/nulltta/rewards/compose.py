"""Rewards made of other rewards, each of them a `Reward` again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from nulltta.contracts import CleanLatents, GuidedModel, Reward
from nulltta.errors import InvalidValue, RewardError
from nulltta.scoring import named


class Custom(Reward):
    """A callable (images (B, 3, H, W) in [0, 1], prompts) -> scores (B,) as a `Reward`.

    It counts as differentiable unless the callable has a false attribute `differentiable`. A callable that turns out
    to give no gradient is reported when the gradient is asked for. A callable with an attribute `name` keeps it.
    """

    def __init__(self, function: Callable[[Tensor, Sequence[str]], Tensor], name: str) -> None:
        self.function = function
        self.name = str(getattr(function, "name", name))
        self.differentiable = bool(getattr(function, "differentiable", True))

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.function(images, prompts)


class WeightedSum(Reward):
    """A weighted sum Σ w·R of rewards on their own scales; differentiable if every part is.

    Rewards of images and of latents can be mixed: latents are then decoded once, for the former.

    Raises:
        InvalidValue: if there are no terms.
    """

    def __init__(self, terms: Sequence[tuple[float, Reward]]) -> None:
        if not terms:
            raise InvalidValue("a sum of rewards needs at least one term")
        self.terms = list(terms)
        self.name = " + ".join(_written(weight, reward) for weight, reward in terms).replace("+ -", "- ")
        self.differentiable = not self.without_gradient
        self.reads_latents = any(reward.reads_latents for _, reward in terms)

    @property
    def without_gradient(self) -> tuple[str, ...]:
        return tuple(name for _, reward in self.terms for name in reward.without_gradient)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return tuple(dict.fromkeys(network for _, reward in self.terms for network in reward.networks))

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._sum(lambda reward: reward(images, prompts))

    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:
        return self._sum(lambda reward: reward.of_latents(clean, prompts))

    def _sum(self, values: Callable[[Reward], Tensor]) -> Tensor:
        """Return Σ w·values(R); an error names the part that failed."""
        found = [weight * named(reward.name, partial(values, reward)) for weight, reward in self.terms]
        return torch.stack(found).sum(0)

    def require_model(self, model: GuidedModel) -> None:
        for _, reward in self.terms:
            reward.require_model(model)


class Standardised(Reward):
    """A reward in units of how much plain samples vary: (R − mean)/deviation.

    Args:
        reward: the reward R.
        mean: one number, or one per prompt as `measured` finds them; None if it is still to be measured.
        deviation: likewise.
    """

    def __init__(
        self,
        reward: Reward,
        mean: float | Mapping[str, float] | None = None,
        deviation: float | Mapping[str, float] | None = None,
    ) -> None:
        self.reward, self.mean, self.deviation = reward, mean, deviation
        given = isinstance(mean, float | int) and isinstance(deviation, float | int)
        self.name = f"z({reward.name}, {mean:g}, {deviation:g})" if given else f"z({reward.name})"
        self.differentiable, self.reads_latents = not self.without_gradient, reward.reads_latents

    @property
    def without_gradient(self) -> tuple[str, ...]:
        return self.reward.without_gradient

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.reward.networks

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (B,).

        Raises:
            InvalidValue: if the mean and deviation are still to be measured, or were not measured for a prompt.
        """
        return self._standardised(named(self.reward.name, partial(self.reward, images, prompts)), prompts)

    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:
        return self._standardised(named(self.reward.name, partial(self.reward.of_latents, clean, prompts)), prompts)

    def require_model(self, model: GuidedModel) -> None:
        self.reward.require_model(model)

    def _standardised(self, values: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (values − mean)/deviation of values (B,)."""
        if self.mean is None or self.deviation is None:
            raise InvalidValue(
                f"'{self.name}' has no mean and deviation yet: give them, as in z({self.reward.name}, 0.2, 0.01), or "
                "use it in align, which measures them on plain samples of its prompts"
            )
        return (values - _per_prompt(self.mean, prompts, values)) / _per_prompt(self.deviation, prompts, values)


def parts(reward: Reward) -> dict[str, Reward]:
    """Return the innermost rewards that a reward is composed of, by name; for a plain reward, itself."""
    match reward:
        case WeightedSum():
            return {name: part for _, term in reward.terms for name, part in parts(term).items()}
        case Standardised():
            return parts(reward.reward)
        case _:
            return {reward.name: reward}


def unmeasured(reward: Reward) -> list[Standardised]:
    """Return the parts z(...) of a reward whose mean and deviation are still to be measured."""
    match reward:
        case WeightedSum():
            return [part for _, term in reward.terms for part in unmeasured(term)]
        case Standardised(mean=None):
            return [reward]
        case _:
            return []


def measured(reward: Reward, scores: Callable[[Reward], Tensor], prompts: Sequence[str]) -> Reward:
    """Return the reward with each part z(...) that lacks its mean and deviation given those of plain samples.

    Args:
        reward: the reward, which is left as it is.
        scores: scores N plain samples by a reward, (N,).
        prompts: their N prompts; each prompt occurs several times.

    Raises:
        RewardError: if the reward fails, or scores all samples of a prompt the same, so that they give no scale.
    """
    match reward:
        case WeightedSum():
            return WeightedSum([(weight, measured(term, scores, prompts)) for weight, term in reward.terms])
        case Standardised(mean=None):
            return _standardised(reward, scores, prompts)
        case _:
            return reward


def _standardised(reward: Standardised, scores: Callable[[Reward], Tensor], prompts: Sequence[str]) -> Standardised:
    """Measure the mean and deviation of one part z(...) per prompt."""
    values = scores(reward.reward).detach().double().cpu()
    mean, deviation = {}, {}
    for prompt in dict.fromkeys(prompts):
        own = values[[p == prompt for p in prompts]]
        mean[prompt], deviation[prompt] = own.mean().item(), own.std(correction=0).item()
        if not deviation[prompt] > 0:
            raise RewardError(f"'{reward.name}' cannot be measured: it is the same for all samples of '{prompt}'")
    return Standardised(reward.reward, mean, deviation)


def _per_prompt(figure: float | Mapping[str, float], prompts: Sequence[str], like: Tensor) -> Tensor | float:
    """Return a figure for each prompt, as a tensor on the device of `like` if prompts have different ones."""
    if not isinstance(figure, Mapping):
        return figure
    if unknown := [prompt for prompt in prompts if prompt not in figure]:
        raise InvalidValue(f"a standardised reward was not measured for '{unknown[0]}'")
    return torch.tensor([figure[prompt] for prompt in prompts]).to(like)


def _written(weight: float, reward: Reward) -> str:
    """Write one term of a sum."""
    name = f"({reward.name})" if isinstance(reward, WeightedSum) else reward.name
    return f"{'-' if weight < 0 else ''}{name}" if abs(weight) == 1 else f"{weight:g}*{name}"
