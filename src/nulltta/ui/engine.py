"""What the page samples with: the models it was started with, one at a time, and rewards of names it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from nulltta import rewards
from nulltta.algorithm.problem import Problem
from nulltta.alignment import make_problem
from nulltta.contracts import GuidedModel, Reward
from nulltta.errors import InvalidValue
from nulltta.evaluation.measures import Measure, held_out_measures
from nulltta.runs.loading import hide_loading_bars, load_silently, usable_device, usual_dtype
from nulltta.runs.request import Request
from nulltta.ui.weights import require_offered

MOST_PROMPTS = 8
LONGEST_PROMPT = 2000  # characters


class Engine:
    """Turns a request into the problem that it poses.

    Attributes:
        models: the names or places of those on offer; nobody at the page can name another.
        reward: the expression that the page starts with.

    Raises:
        NullTTAError: there is no such device, or the first model or the reward does not load.
    """

    def __init__(
        self, models: Sequence[str], reward: str = "clip", device: str | None = None, dtype: str | None = None
    ) -> None:
        self.models, self.reward, self.device = tuple(models), reward, usable_device(device)
        self.dtype = dtype or usual_dtype(self.device)
        self.model = lru_cache(maxsize=1)(self._model)
        self.reward_of = lru_cache(maxsize=2)(self._load_reward)  # a target and a guard
        hide_loading_bars()
        self.reward_of(reward)
        self.model(self.models[0])

    def posed(self, request: Request) -> tuple[Request, Problem]:
        """The request with nothing left to find out, and the problem that it poses.

        Raises:
            NullTTAError: it asks for what is not offered, or poses no problem.
        """
        _require_few(request.prompts, request.negative_prompt)
        reward = self.reward_of(request.reward)
        guard = None if request.guard is None else self.reward_of(request.guard)
        model, config = self.model(request.model), request.config.resolved(differentiable=reward.differentiable)
        request = replace(request, config=config, device=str(self.device), dtype=self.dtype)
        return request, make_problem(
            model, request.prompts, reward, config, request.seed, request.negative_prompt, guard=guard
        )

    def measures(self, request: Request) -> Mapping[str, Measure]:
        """What else to measure."""
        return held_out_measures(self.model(request.model), self.device)

    def _model(self, name: str) -> GuidedModel:
        if name not in self.models:
            raise InvalidValue(f"model '{name}' is not offered here: choose one of {', '.join(self.models)}")
        return load_silently(name, self.device, self.dtype)

    def _load_reward(self, expression: str) -> Reward:
        require_offered(expression, self.reward)
        return rewards.load(expression, device=self.device)


def _require_few(prompts: Sequence[str], negative: str) -> None:
    if len(prompts) > MOST_PROMPTS:
        raise InvalidValue(f"{len(prompts)} prompts are too many for a page: {MOST_PROMPTS} at most")
    if (longest := max(map(len, (*prompts, negative)))) > LONGEST_PROMPT:
        raise InvalidValue(f"a prompt of {longest} characters is too long: {LONGEST_PROMPT} at most")
