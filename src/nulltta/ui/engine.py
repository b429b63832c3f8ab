"""The models and rewards that the page samples with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from nulltta import rewards
from nulltta.algorithm.budget import by_step
from nulltta.algorithm.problem import Problem
from nulltta.alignment import make_problem
from nulltta.contracts import GuidedModel, Reward
from nulltta.errors import InvalidValue, blaming
from nulltta.evaluation.measures import held_out_measures
from nulltta.rewards.allowed import parse_allowed
from nulltta.rewards.expression import Name, names, parse
from nulltta.runs.loading import LoadedRun, load_model, load_reward, resolved, under_their_flags
from nulltta.runs.request import AlignRequest, ModelSettings

MAX_PROMPTS = 8
MAX_PROMPT_LENGTH = 2000
"""The largest number of characters in a prompt."""
MAX_SETTINGS: Mapping[str, int] = {
    "num_inference_steps": 1000, "inner_steps": 1000, "num_particles": 64, "zeroth_order_samples": 256,
}  # fmt: skip
MAX_PIXELS = 2**22
"""The largest number of pixels of an image, or of all frames of a video, that is asked for."""
MAX_EVALUATIONS = 200_000
"""The largest number of denoiser evaluations per run."""


class PageEngine:
    """Loads the models and rewards that the page offers, one model at a time.

    Args:
        models: the names or directories of the models; visitors cannot name another.
        reward: the expression that the page starts with. Visitors may use the rewards in it, and all known names
            without a source.
        device: None for the GPU if there is one.
        dtype: None for the usual one of the device.
        offload: which parts of a model stay away from the device while others work.

    Raises:
        InvalidValue: if the device cannot be used, or the reward is unknown.
        LoadError: if the first model or the reward does not load.
    """

    def __init__(
        self,
        models: Sequence[str],
        reward: str = "clip",
        device: str | None = None,
        dtype: str | None = None,
        offload: str = "none",
    ) -> None:
        self.models, self.reward = tuple(models), reward
        self.settings = resolved(ModelSettings(device=device, dtype=dtype, offload=offload))
        self.device = str(self.settings.device)
        self.model = lru_cache(maxsize=1)(self._model)
        self.reward_of = lru_cache(maxsize=2)(self._load_reward)
        with blaming("reward"):
            self._allowed = [*map(Name, rewards.REWARDS), *names(parse(reward))]
            self.reward_of(reward)
        self.model(self.models[0])

    def prepare(self, request: AlignRequest) -> tuple[LoadedRun, Problem]:
        """Return the request's settings with everything loaded, and its problem.

        Raises:
            InvalidValue: if the request asks for a model or reward that is not offered, or for too much.
        """
        _require_feasible(request)
        settings = request.settings
        reward = self.reward_of(settings.reward)
        config = settings.config.resolved(differentiable=reward.differentiable)
        call = settings.arguments()
        with under_their_flags(settings):
            model = self.model(settings.model).called(**call)
        settings = replace(settings, config=config, device=self.device, dtype=self.settings.dtype)
        problem = make_problem(model, request.prompts, reward, config, request.seed, request.negative_prompt)
        return LoadedRun(settings, model, reward, held_out_measures(model, self.device)), problem

    def _model(self, name: str) -> GuidedModel:
        if name not in self.models:
            raise InvalidValue(f"model '{name}' is not offered here: choose one of {', '.join(self.models)}")
        return load_model(replace(self.settings, model=name))

    def _load_reward(self, expression: str) -> Reward:
        parse_allowed(expression, self._allowed)
        return load_reward(expression, self.device)


def _require_feasible(request: AlignRequest) -> None:
    """Refuse a request that would keep the model busy for too long, before anything is computed or allocated."""
    prompts, config = request.prompts, request.settings.config
    if len(prompts) > MAX_PROMPTS:
        raise InvalidValue(f"{len(prompts)} prompts are too many for a page: {MAX_PROMPTS} at most")
    if (longest := max(map(len, (*prompts, request.negative_prompt)))) > MAX_PROMPT_LENGTH:
        raise InvalidValue(f"a prompt of {longest} characters is too long: {MAX_PROMPT_LENGTH} at most")
    settings = request.settings
    pixels = (settings.width or 1) * (settings.height or 1) * (settings.num_frames or 1)
    if pixels > MAX_PIXELS:
        raise InvalidValue(f"{pixels:,} pixels are too many for a page: {MAX_PIXELS:,} at most, frames included")
    for name, most in MAX_SETTINGS.items():
        value = getattr(config, name)
        if (largest := max(value) if isinstance(value, tuple) else value) > most:
            raise InvalidValue(f"must be {most} at most on a page, not {largest}", field=name)
    if (evaluations := len(prompts) * sum(by_step(config))) > MAX_EVALUATIONS:
        raise InvalidValue(f"{evaluations:,} denoiser evaluations are too many for a page: {MAX_EVALUATIONS:,} at most")
