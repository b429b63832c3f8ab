"""What `nulltta fit` is asked for. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue
from nulltta.fit.settings import FitSettings
from nulltta.prompts import require_prompts
from nulltta.runs.request import ModelSettings

MOST_VALIDATION = 48
"""The most prompts that are set aside for validation where none are given."""


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """A null text to be fitted.

    Attributes:
        prompts: the training prompts; without `validation`, the last eighth of them, 2 to 48, is set aside for it.
        out: the file to write; one that a stopped fit has written is replaced.
        settings: how it is fitted.
        config: steps, guidance, η, and the weights of the objective.
        model: the model, where it runs and how.
        reward: the reward to raise.
        reward_source: where the weights of a reward given by name are.
        guards: rewards that must not fall on the validation prompts.
        validation: prompts on which plain and fitted pictures are compared.
        micro_batch: how many rows go through the networks at once; None for all of them.

    Raises:
        InvalidValue: if there are fewer than two prompts of either kind, a prompt is not usable, a setting has no
            effect, or the file exists or has another suffix than .safetensors.
    """

    prompts: Sequence[str]
    out: Path
    settings: FitSettings = field(default_factory=FitSettings)
    config: NullTTAConfig = field(default_factory=NullTTAConfig)
    model: ModelSettings = field(default_factory=ModelSettings)
    reward: str
    reward_source: str | None = None
    guards: Sequence[str] = ()
    validation: Sequence[str] = ()
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        require_prompts([*self.prompts, *self.validation])
        if len(self.prompts) < (2 if self.validation else 4):
            raise InvalidValue("needs more prompts: 4, or 2 with validation prompts of their own", "prompts")
        if len(self.validation) == 1:
            raise InvalidValue("needs 2 prompts or more", "validation")
        if self.settings.form != "tokens" and self.settings.tokens != FitSettings.tokens:
            raise InvalidValue(f"has no effect: the form is {self.settings.form} (form)", "tokens")
        require_consistent(self.out, self.reward, self.guards)

    @property
    def training_prompts(self) -> Sequence[str]:
        """The prompts on which it is fitted."""
        return self.prompts if self.validation else self.prompts[: -self._set_aside]

    @property
    def validation_prompts(self) -> Sequence[str]:
        """The prompts on which it is validated."""
        return self.validation or self.prompts[-self._set_aside :]

    @property
    def _set_aside(self) -> int:
        return min(MOST_VALIDATION, max(2, len(self.prompts) // 8))

    @property
    def checkpoint(self) -> Path:
        """The file of the fit's state, from which a stopped fit goes on."""
        return checkpoint_of(self.out)


def checkpoint_of(out: Path) -> Path:
    """Return the file of the state of a fit that writes `out`."""
    return out.with_name(out.name + ".training")


def require_consistent(out: Path, reward: str, guards: Sequence[str]) -> None:
    """Check what can be checked before the prompts are known, which may have to be fetched.

    Raises:
        InvalidValue: if `out` exists without a state to go on from, or has another suffix than .safetensors, or if a
            guard is the reward.
    """
    if reward in guards:
        raise InvalidValue(f"'{reward}' is the reward itself, which is raised: name another", "guard")
    if out.suffix != ".safetensors":
        raise InvalidValue(f"must end in .safetensors, by which a null text is known, not '{out.name}'", "out")
    if out.exists() and not checkpoint_of(out).exists():
        raise InvalidValue(f"'{out}' exists: choose another file, or delete it", "out")
