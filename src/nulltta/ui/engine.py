"""The models and rewards that the page samples with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from nulltta.algorithm.problem import Problem
from nulltta.alignment import make_problem
from nulltta.config import NullTTAConfig, refuse_without_effect
from nulltta.contracts import GuidedModel, Reward
from nulltta.embedded.worlds import foreign_scorers
from nulltta.errors import InvalidValue, blaming
from nulltta.evaluation.evidence import Features, features_of
from nulltta.evaluation.measures import held_out_measures
from nulltta.rewards.allowed import parse_allowed
from nulltta.rewards.catalogue import ListedReward, catalogue
from nulltta.rewards.expression import Name, names, parse
from nulltta.runs.call import picture_size
from nulltta.runs.loading import LoadedRun, load_model, load_reward, resolved, under_their_flags
from nulltta.runs.request import AlignRequest, ModelSettings
from nulltta.ui.pace import Pace, work_of

MAX_PICTURES = 8
"""The largest number of pictures of a run: prompts times seeds."""
MAX_PROMPT_LENGTH = 2000
"""The largest number of characters in a prompt."""
MAX_SETTINGS: Mapping[str, int] = {
    "num_inference_steps": 1000, "inner_steps": 1000, "num_particles": 64, "zeroth_order_samples": 256,
}  # fmt: skip
MAX_SEED = 2**53 - 1
"""The largest whole number that a browser keeps exactly."""
MAX_PIXELS = 2**22
"""The largest number of pixels of an image, or of all frames of a video, that is asked for."""
MAX_EVALUATIONS = 200_000
"""The largest number of denoiser evaluations per run."""


@dataclass(frozen=True)
class PreparedRun:
    """A run with everything loaded.

    Attributes:
        loaded: the model, the reward and the measures.
        problem: what the method is given.
        notes: what the visitor should know: words that the model does not know, a prompt that was cut.
        features: how alike pictures are.
        pace: the speed of the model.
    """

    loaded: LoadedRun
    problem: Problem
    notes: Sequence[str]
    features: Features
    pace: Pace


class PageEngine:
    """Loads the models and rewards that the page offers, one model at a time.

    Args:
        models: the names or directories of the models; visitors cannot name another.
        reward: the expression that the page starts with. Visitors may use the rewards in it, and all known names
            whose files are on this machine.
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
        reward: str,
        device: str | None = None,
        dtype: str | None = None,
        offload: str = "none",
    ) -> None:
        self.models, self.reward = tuple(models), reward
        self.settings = resolved(ModelSettings(device=device, dtype=dtype, offload=offload))
        self.device = str(self.settings.device)
        self.model = lru_cache(maxsize=1)(self._model)
        self.reward_of = lru_cache(maxsize=2)(self._load_reward)
        self.features = lru_cache(maxsize=1)(features_of)
        self.paces = {name: Pace() for name in self.models}
        with blaming("reward"):
            self._allowed = [*(Name(row.name) for row in catalogue() if row.present), *names(parse(reward))]
            self.reward_of(reward)
            self._require_known(reward, self.models[0])
        self.model(self.models[0])

    def offered(self, model: str) -> list[ListedReward]:
        """Return the rewards that a visitor may use with a model by name alone.

        Their files are on this machine. Scorers of another model's world, which know nothing else, are left out.
        """
        foreign = foreign_scorers(model)
        return [row for row in catalogue() if row.present and row.name not in foreign]

    def prepare(self, request: AlignRequest) -> PreparedRun:
        """Load everything that a request needs, and state its problem.

        Raises:
            InvalidValue: if the request asks for a model or reward that is not offered, or for too much.
        """
        require_feasible(request)
        settings = request.settings
        self._require_known(settings.reward, settings.model)
        reward = self.reward_of(settings.reward)
        usual = NullTTAConfig.preset(settings.model)
        refuse_without_effect(
            settings.config, usual, settings.method, differentiable=reward.differentiable, started=False
        )
        config = settings.config.resolved(differentiable=reward.differentiable)
        call = settings.arguments()
        with under_their_flags(settings):
            model = self.model(settings.model).called(**call)
        settings = replace(settings, config=config, device=self.device, dtype=self.settings.dtype)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module="nulltta")
            problem = make_problem(model, request.prompts, reward, config, request.seeds, request.negative_prompt)
        notes = list(dict.fromkeys(str(warning.message) for warning in caught))
        loaded = LoadedRun(settings, model, reward, held_out_measures(model, self.device))
        features = self.features(settings.model, self.device)
        return PreparedRun(loaded, problem, notes, features, self.paces[settings.model])

    def _model(self, name: str) -> GuidedModel:
        if name not in self.models:
            raise InvalidValue(f"model '{name}' is not offered here: choose one of {', '.join(self.models)}")
        return load_model(replace(self.settings, model=name))

    def _require_known(self, expression: str, model: str) -> None:
        """Refuse scorers that know another model's pictures only."""
        known = {row.name for row in self.offered(model)}
        toys = foreign_scorers("") - known
        used = names(parse_allowed(expression, self._allowed))
        if wrong := [name.word for name in used if name.word in toys and name.argument is None]:
            raise InvalidValue(f"'{wrong[0]}' does not know the pictures of {model}: choose among {', '.join(known)}")

    def _load_reward(self, expression: str) -> Reward:
        parse_allowed(expression, self._allowed)
        return load_reward(expression, self.device)


def require_feasible(request: AlignRequest) -> None:
    """Refuse a request that would keep the model busy for too long, before anything is computed or allocated."""
    prompts, config = request.prompts, request.settings.config
    if len(prompts) > MAX_PICTURES:
        raise InvalidValue(f"{len(prompts)} pictures are too many for one run of the page: {MAX_PICTURES} at most")
    if max(request.seeds) > MAX_SEED:
        raise InvalidValue(f"must be {MAX_SEED} at most on a page", field="seed")
    if (longest := max(map(len, (*prompts, request.negative_prompt)))) > MAX_PROMPT_LENGTH:
        raise InvalidValue(f"a prompt of {longest} characters is too long: {MAX_PROMPT_LENGTH} at most")
    settings = request.settings
    width, height = settings.width or 1, settings.height or 1
    if settings.image is not None and not settings.width:  # most pipelines then draw in the size of the picture
        width, height = picture_size(settings.image)
    pixels = width * height * (settings.num_frames or 1)
    if pixels > MAX_PIXELS:
        raise InvalidValue(f"{pixels:,} pixels are too many for a page: {MAX_PIXELS:,} at most, frames included")
    for name, most in MAX_SETTINGS.items():
        value = getattr(config, name)
        if (largest := max(value) if isinstance(value, tuple) else value) > most:
            raise InvalidValue(f"must be {most} at most on a page, not {largest}", field=name)
    if (evaluations := work_of(config, len(prompts))) > MAX_EVALUATIONS:
        raise InvalidValue(f"{evaluations:,} denoiser evaluations are too many for a page: {MAX_EVALUATIONS:,} at most")
