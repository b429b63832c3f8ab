"""From the settings of a run to its loaded model and rewards."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from nulltta import models, rewards
from nulltta.alignment import METHODS, Result, align
from nulltta.config import NullTTAConfig, one_of, refuse_without_effect
from nulltta.contracts import GuidedModel, OnStep, Reward
from nulltta.devices import usual_device, usual_dtype
from nulltta.embedded.worlds import WORLDS, foreign_scorers
from nulltta.errors import InvalidValue, blaming, first_line, out_of_memory_as_error
from nulltta.evaluation.comparison import Comparison, compare
from nulltta.evaluation.measures import Measure, held_out_measures
from nulltta.null_text import loading
from nulltta.null_text.loading import AnyNullText
from nulltta.null_text.start import require_started
from nulltta.quiet import quiet_libraries
from nulltta.rewards.expression import names, parse, with_source
from nulltta.runs.call import CallSettings
from nulltta.runs.request import ModelSettings, RunSettings

_LOG = logging.getLogger(__name__)
Settings = TypeVar("Settings", bound=ModelSettings)


@dataclass(frozen=True)
class LoadedRun:
    """The settings of a run with everything loaded that they name.

    Attributes:
        settings: with the device, the type, the reward's source and the kind of gradient resolved.
        measures: what images are measured by besides the reward.
        start: the null text to start from.
    """

    settings: RunSettings
    model: GuidedModel
    reward: Reward
    measures: Mapping[str, Measure]
    start: AnyNullText | None = None

    def align(
        self,
        prompts: Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        negative_prompt: str | Sequence[str] = "",
        config: NullTTAConfig | None = None,
        on_step: OnStep | None = None,
    ) -> Result:
        """Align a batch of prompts under these settings; `config` replaces that of the settings.

        Raises:
            InvalidValue: if an argument is wrong.
            RewardError: if a reward fails or lacks a gradient that is needed.
            OutOfMemory: if memory runs out.
        """
        return align(
            self.model, prompts, self.reward, config=config or self.settings.config, method=self.settings.method,
            seed=seed, negative_prompt=negative_prompt, on_step=on_step,
            micro_batch=self.settings.micro_batch, start=self.start, progress=False,
        )  # fmt: skip

    def compare(self, prompts: Sequence[str], **options: Any) -> list[Comparison]:
        """Align a batch of prompts as `align` does, sample it plainly too, and measure both."""
        return compare(self.align(prompts, **options), self.measures)


def load(settings: RunSettings) -> LoadedRun:
    """Load the rewards and the model of a run, the rewards first because their mistakes are found faster.

    Raises:
        InvalidValue: if the device cannot be used, an expression is malformed, or a setting that was given has no
            effect.
        LoadError: if the model, a reward or the null text to start from does not load.
        DoesNotFit: if the null text was made for another model.
    """
    settings = resolved(settings)
    one_of(settings, "method", METHODS)
    usual, started = settings.usual, settings.start is not None
    refuse_without_effect(settings.config, usual, settings.method, started=started)
    if settings.tiny_decoder is not None and settings.config.inner_decoder == "full":
        raise InvalidValue("has no effect: choose the tiny decoder (inner_decoder)", "tiny_decoder")
    start = read_start(settings.start, settings.method)
    if settings.reward_source is None:
        refuse_toy_scorers(settings.reward, settings.model)
    dtype = None if settings.reward_dtype is None else getattr(torch, settings.reward_dtype)
    with blaming("reward" if settings.reward_source is None else "reward_source"):
        reward_name = with_source(settings.reward, settings.reward_source)
        reward = load_reward(reward_name, settings.device, dtype)
    config = settings.config.resolved(differentiable=reward.differentiable)
    refuse_without_effect(
        settings.config, usual, settings.method, differentiable=reward.differentiable, started=started
    )
    settings = replace(settings, reward=reward_name, reward_source=None, config=config)
    model = load_model(settings)
    with quiet_libraries():
        measures = held_out_measures(model, settings.device)
    if start is not None:
        with blaming("start"):
            start.require_fit(model)
    return LoadedRun(settings, model, reward, measures, start)


def read_start(file: str | Path | None, *methods: str) -> AnyNullText | None:
    """Read the null text from which methods start; None for no file.

    Raises:
        InvalidValue: if a method ignores it.
        LoadError: if it cannot be read.
    """
    if file is None:
        return None
    for method in methods:
        require_started(method)
    with blaming("start"):
        return loading.load(file)


def refuse_toy_scorers(expression: str, model: str, argument: str = "reward") -> None:
    """Check that a scorer of an embedded world, which knows that world's things only, scores no other model.

    A scorer with a source of its own (`clip:FOLDER`) is accepted. `argument` names the expression, for errors.

    Raises:
        InvalidValue: if the expression is malformed, or names such a scorer.
    """
    with blaming(argument):
        named = [name.word for name in names(parse(expression)) if name.argument is None]
    foreign = foreign_scorers(model)
    if toy := next((word for word in named if word in foreign), None):
        home = next(name for name, world in WORLDS.items() if toy in world.scorers)
        own = WORLDS[model].target if model in WORLDS else "pickscore, imagereward or clipscore"
        raise InvalidValue(
            f"'{toy}' knows what the model '{home}' draws and nothing else: name another, such as {own} "
            "(`nulltta rewards` lists them)",
            argument,
        )


def load_model(settings: ModelSettings) -> GuidedModel:
    """Load the model that the settings name.

    Raises:
        InvalidValue: if the device cannot be used, a picture cannot be read, or the pipeline's call has no such
            argument.
        LoadError: if the model does not load.
    """
    settings, call = resolved(settings), settings.arguments()
    began = time.monotonic()
    with under_their_flags(settings), blaming("model"):
        model = models.load_model(
            settings.model, device=settings.device, dtype=getattr(torch, str(settings.dtype)),
            base_model=settings.base_model, tiny_decoder=settings.tiny_decoder, compile=settings.compile,
            offload=settings.offload, **call,
        )  # fmt: skip
    seconds = time.monotonic() - began
    _LOG.info("model '%s' on %s in %s, loaded in %.1f s", settings.model, settings.device, settings.dtype, seconds)
    return model


@contextmanager
def under_their_flags(settings: CallSettings) -> Iterator[None]:
    """Blame the setting that gave an argument of the pipeline's call instead of the argument."""
    try:
        yield
    except InvalidValue as error:
        if error.field == "mask_image":
            raise InvalidValue(error.reason, field="mask") from error
        if error.field in {pair.partition("=")[0] for pair in settings.call}:
            raise InvalidValue(f"gives {error.field}, which {error.reason}", field="call") from error
        raise


def load_reward(expression: str, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Reward:
    """Load a reward, with no output of other libraries but the progress of downloads.

    Raises:
        InvalidValue: if the expression is malformed or names an unknown reward.
        LoadError: if its weights do not load.
        OutOfMemory: if they do not fit into memory.
    """
    began = time.monotonic()
    with quiet_libraries(), out_of_memory_as_error(f"load '{expression}' in half precision (reward_dtype)"):
        reward = rewards.load(expression, device=device, dtype=dtype)
    _LOG.info("reward '%s', loaded in %.1f s", expression, time.monotonic() - began)
    return reward


def resolved(settings: Settings) -> Settings:
    """Return the settings with the device and the type that they leave open filled in.

    Raises:
        InvalidValue: if the device cannot be used.
    """
    device = usable_device(settings.device)
    return replace(
        settings, device=str(device), dtype=settings.dtype or str(usual_dtype(device)).removeprefix("torch.")
    )


def usable_device(name: str | None) -> torch.device:
    """Return the device of that name, or the GPU if there is one where the name is None.

    Raises:
        InvalidValue: if the device cannot be used here.
    """
    name = str(usual_device()) if name is None else name
    if not name.strip():
        raise InvalidValue(f"'{name}' is not a device: give cpu, cuda, cuda:1 or mps", "device")
    if name.partition(":")[0] == "meta":
        raise InvalidValue("'meta' holds no numbers: give cpu, cuda or mps", "device")
    try:
        return torch.empty(1, device=torch.device(name)).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        if reason.startswith("Expected one of"):  # forty kinds, of which few are ever there
            reason = "there is no such kind of device; give cpu, cuda, cuda:1 or mps"
        elif reason.startswith("Could not run"):  # a page about the backends that were compiled in
            reason = "this installation of PyTorch does not have it"
        raise InvalidValue(f"'{name}' cannot be used: {reason}", "device") from error
