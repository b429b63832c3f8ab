"""What the page samples with: the models it was started with, one at a time, and rewards of names it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from nulltta import rewards
from nulltta.algorithm.problem import Problem
from nulltta.alignment import make_problem
from nulltta.contracts import GuidedModel, Reward
from nulltta.errors import InvalidValue
from nulltta.evaluation.measures import held_out_measures
from nulltta.runs.loading import LoadedRun, hide_loading_bars, load_model, resolved
from nulltta.runs.request import AlignRequest, ModelSettings
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
        self.models, self.reward = tuple(models), reward
        self.settings = resolved(ModelSettings(device=device, dtype=dtype))
        self.device = str(self.settings.device)
        self.model = lru_cache(maxsize=1)(self._model)
        self.reward_of = lru_cache(maxsize=2)(self._load_reward)  # a target and a guard
        hide_loading_bars()
        self.reward_of(reward)
        self.model(self.models[0])

    def posed(self, request: AlignRequest) -> tuple[LoadedRun, Problem]:
        """The request's settings with everything loaded, and the problem that it poses.

        Raises:
            NullTTAError: it asks for what is not offered, or poses no problem.
        """
        _require_few(request.prompts, request.negative_prompt)
        settings = request.settings
        reward = self.reward_of(settings.reward)
        guard = None if settings.guard is None else self.reward_of(settings.guard)
        model, config = self.model(settings.model), settings.config.resolved(differentiable=reward.differentiable)
        settings = replace(settings, config=config, device=self.device, dtype=self.settings.dtype)
        problem = make_problem(
            model, request.prompts, reward, config, request.seed, request.negative_prompt, guard=guard
        )
        return LoadedRun(settings, model, reward, guard, held_out_measures(model, self.device)), problem

    def _model(self, name: str) -> GuidedModel:
        if name not in self.models:
            raise InvalidValue(f"model '{name}' is not offered here: choose one of {', '.join(self.models)}")
        return load_model(replace(self.settings, model=name))

    def _load_reward(self, expression: str) -> Reward:
        require_offered(expression, self.reward)
        return rewards.load(expression, device=self.device)


def _require_few(prompts: Sequence[str], negative: str) -> None:
    if len(prompts) > MOST_PROMPTS:
        raise InvalidValue(f"{len(prompts)} prompts are too many for a page: {MOST_PROMPTS} at most")
    if (longest := max(map(len, (*prompts, negative)))) > LONGEST_PROMPT:
        raise InvalidValue(f"a prompt of {longest} characters is too long: {LONGEST_PROMPT} at most")
