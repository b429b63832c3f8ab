"""Rewards made of others; what they make is a `Reward` again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue


class Custom:
    """Any callable (images (B, 3, H, W) in [0, 1], prompts) -> (B,) as a `Reward`.

    It is taken to be differentiable unless its attribute `differentiable` is false; one that turns out not to be
    is reported when its gradient is asked for.
    """

    def __init__(self, function: Callable[[Tensor, Sequence[str]], Tensor], name: str) -> None:
        self.function = function
        self.name = name
        self.differentiable = bool(getattr(function, "differentiable", True))

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.function(images, prompts)


class WeightedSum:
    """Σ w·R: differentiable where every part is; `without_gradient` names the parts that are not.

    Each part keeps its own scale; `components` has their values one by one.
    """

    def __init__(self, terms: Sequence[tuple[float, Reward]]) -> None:
        if not terms:
            raise InvalidValue("a sum of rewards needs at least one")
        self.terms = list(terms)
        self.name = " + ".join(_spelt(weight, reward) for weight, reward in terms).replace("+ -", "- ")
        self.without_gradient = tuple(part for _, reward in terms for part in without_gradient(reward))
        self.differentiable = not self.without_gradient

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.stack([weight * reward(images, prompts) for weight, reward in self.terms]).sum(0)

    def components(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Each part's own (B,) by name, without its weight; of nested sums, the innermost parts."""
        return components(self, images, prompts)

    def unmeasured(self) -> list[Standardised]:
        """The parts whose mean and deviation are still to be measured."""
        return [part for _, reward in self.terms for part in unmeasured(reward)]

    def measured(self, images: Tensor, prompts: Sequence[str]) -> WeightedSum:
        """The same sum, its unmeasured parts measured."""
        return WeightedSum([(weight, measured(reward, images, prompts)) for weight, reward in self.terms])


class Standardised:
    """(R − mean)/deviation: a reward on the scale of what plain samples vary by.

    mean, deviation: two numbers, or one of each a prompt, as `measured` finds them; without them a call is an error.
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
        self.without_gradient = without_gradient(reward)
        self.differentiable = not self.without_gradient

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        values = self.reward(images, prompts)
        if self.mean is None or self.deviation is None:
            raise InvalidValue(
                f"'{self.name}' has no mean and deviation yet: give them, as in z({self.reward.name}, 0.2, 0.01), or "
                "use it in align, which measures them on plain samples of its prompts"
            )
        return (values - _each(self.mean, prompts, values)) / _each(self.deviation, prompts, values)

    def components(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The parts' own values by name, not standardised."""
        return components(self, images, prompts)

    def unmeasured(self) -> list[Standardised]:
        """Itself, if its mean and deviation are still to be measured."""
        return [self] if self.mean is None else []

    def measured(self, images: Tensor, prompts: Sequence[str]) -> Standardised:
        """The same, by each prompt's mean and deviation over its images (N, 3, H, W), N prompts, each several times.

        Raises:
            NullTTAError: a prompt's values do not vary, so that there is no scale.
        """
        if self.mean is not None:
            return self
        values = self.reward(images, prompts).detach().double().cpu()
        mean, deviation = {}, {}
        for prompt in dict.fromkeys(prompts):
            own = values[[p == prompt for p in prompts]]
            mean[prompt], deviation[prompt] = own.mean().item(), own.std(correction=0).item()
            if not deviation[prompt] > 0:
                raise InvalidValue(f"'{self.name}' cannot be measured: it is the same for all samples of '{prompt}'")
        return Standardised(self.reward, mean, deviation)


def parts(reward: Reward) -> dict[str, Reward]:
    """The rewards that a reward is made of, by name, the innermost of nested ones; of a plain one, itself."""
    if isinstance(reward, WeightedSum):
        return {name: part for _, term in reward.terms for name, part in parts(term).items()}
    return parts(reward.reward) if isinstance(reward, Standardised) else {reward.name: reward}


def components(reward: Reward, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
    """The values (B,) of a reward's parts by name, on their own scales; of a plain one, its own."""
    return {name: part(images, prompts) for name, part in parts(reward).items()}


def without_gradient(reward: Reward) -> tuple[str, ...]:
    """The names of a reward's parts that give no gradient; () if it is differentiable."""
    if isinstance(reward, WeightedSum | Standardised):
        return reward.without_gradient
    return () if reward.differentiable else (reward.name,)


def unmeasured(reward: Reward) -> list[Standardised]:
    """The parts z(...) whose mean and deviation are still to be measured."""
    return reward.unmeasured() if isinstance(reward, WeightedSum | Standardised) else []


def measured(reward: Reward, images: Tensor, prompts: Sequence[str]) -> Reward:
    """The reward with such parts measured on images (N, 3, H, W) of N prompts, each prompt several times."""
    return reward.measured(images, prompts) if isinstance(reward, WeightedSum | Standardised) else reward


def _each(figure: float | Mapping[str, float], prompts: Sequence[str], like: Tensor) -> Tensor | float:
    if not isinstance(figure, Mapping):
        return figure
    if unknown := [prompt for prompt in prompts if prompt not in figure]:
        raise InvalidValue(f"a standardised reward was not measured for '{unknown[0]}'")
    return torch.tensor([figure[prompt] for prompt in prompts]).to(like)


def _spelt(weight: float, reward: Reward) -> str:
    name = f"({reward.name})" if isinstance(reward, WeightedSum) else reward.name
    return f"{'-' if weight < 0 else ''}{name}" if abs(weight) == 1 else f"{weight:g}*{name}"
