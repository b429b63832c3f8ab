"""Exact replay: the recorded noise, and rows in batches of the same sizes as in the run, so that bits agree.

Matrix products and convolutions of a batch may be summed in another order than those of one row, so that a batch's
last bits differ. They depend on the batch's size and the row's place in it, not on what the other rows hold: a row
comes out bit for bit as the same row of a batch of as many copies of it. Rows are copied because a kernel's order may
also depend on where in memory a row begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel, ModelWrapper, NoiseStep
from nulltta.errors import DoesNotFit, InvalidValue
from nulltta.null_text.identity import require_same_denoiser

if TYPE_CHECKING:
    from nulltta.null_text.value import NullText

MAX_CANDIDATES = 1024
"""The most candidates that a file may claim: more would ask for memory, not for a replay."""
SAMPLING = ("num_inference_steps", "guidance_scale", "eta")
"""The settings that replay uses."""
GUIDANCE = ("guidance", "nag_scale", "nag_tau", "nag_alpha", "nag_norm", "nag_null")
"""Those that it uses too where the guidance is not classifier-free."""

BatchPosition: TypeAlias = tuple[int, int]
"""The size of a batch, and a row of it."""


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Where the rows of a run of one prompt stood in its batches.

    ε(x_i, c) was evaluated when x_i was one of K candidates, and so was ε(x_i, φ') if step i took no inner steps;
    otherwise ε(x_i, φ') was evaluated alone.

    Attributes:
        candidates: K.
        joint: whether the candidates' two branches were one batch, [null; cond].
        rows: which candidate x_i was at each of T steps and at the end, T + 1 numbers.
        inner_steps: how many inner steps each of the T steps took.
    """

    candidates: int
    joint: bool
    rows: Sequence[int]
    inner_steps: Sequence[int]

    def null(self, index: int) -> BatchPosition:
        """Return the position of ε(x_i, φ')."""
        if self.inner_steps[index]:
            return 1, 0
        return (2 if self.joint else 1) * self.candidates, self.rows[index]

    def cond(self, index: int) -> BatchPosition:
        """Return the position of ε(x_i, c)."""
        K, row = self.candidates, self.rows[index]
        return (2 * K, K + row) if self.joint else (K, row)

    @property
    def decoded(self) -> BatchPosition:
        """The position of the decoded image."""
        return self.candidates, self.rows[-1]

    @classmethod
    def recorded(cls, about: Mapping[str, Any], steps: int) -> BatchLayout:
        """Return the layout that a null text records; every row alone if it records none.

        Raises:
            InvalidValue: if the record is not a possible layout.
        """
        said = about.get("batch")
        if said is None:
            return cls(1, False, [0] * (steps + 1), [1] * steps)
        try:
            layout = cls(int(said["candidates"]), bool(said["joint"]), list(said["rows"]), list(said["inner_steps"]))
            possible = 1 <= layout.candidates <= MAX_CANDIDATES
            possible = possible and len(layout.inner_steps) == steps == len(layout.rows) - 1
            possible = possible and all(type(row) is int and 0 <= row < layout.candidates for row in layout.rows)
        except (KeyError, TypeError, ValueError, OverflowError):
            possible = False
        if not possible:
            raise InvalidValue("the null text's record of the run's batches makes no sense: it cannot replay exactly")
        return layout


class RowByRow(ModelWrapper):
    """A model that evaluates each row of `encode`, `predict` and `decode` alone.

    The bits of a row then do not depend on what shares its batch, at the price of the batch's speed.
    """

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        rows = [self.model.encode([prompt], [negative]) for prompt, negative in zip(prompts, negatives, strict=True)]
        cond, null = ({name: torch.cat([row[i][name] for row in rows]) for name in rows[0][i]} for i in (0, 1))
        return cond, null

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        rows = [{name: tensor[i : i + 1].clone() for name, tensor in embedding.items()} for i in range(len(x))]
        return torch.cat([self.model.predict(x[i : i + 1].clone(), step, row) for i, row in enumerate(rows)])

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        return torch.cat([self.model.decode(x0[i : i + 1].clone(), detail) for i in range(len(x0))])


def recorded_config(about: Mapping[str, Any]) -> NullTTAConfig:
    """Return the settings of sampling that a null text's "about" records; others are defaults and play no part.

    Raises:
        InvalidValue: if its file gives a setting an impossible value.
    """
    config = about.get("config", {})
    if not isinstance(config, Mapping):
        raise InvalidValue("the null text's record of its settings makes no sense")
    given = {name: config[name] for name in (*SAMPLING, *GUIDANCE) if name in config}
    return NullTTAConfig(**given, inner_steps=(0, 0))  # replay takes none, with which every guidance is valid


def sampling_settings(config: NullTTAConfig) -> dict[str, Any]:
    """Return the settings of a configuration that replay uses, by name."""
    names = SAMPLING if config.guidance == "cfg" else (*SAMPLING, *GUIDANCE)
    return {name: getattr(config, name) for name in names}


def steps_of(model: GuidedModel, config: NullTTAConfig) -> list[NoiseStep]:
    """Return the model's denoising steps at the settings' T and η."""
    return [step.with_eta(config.eta) for step in model.schedule(config.num_inference_steps)]


def recording(null_text: NullText, model: GuidedModel, steps: Sequence[NoiseStep]) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the recorded initial latent and step noise.

    Raises:
        DoesNotFit: if the null text holds no noise, or that of other steps or of latents of another shape, or the
            model has another denoiser.
    """
    if null_text.latents is None or null_text.noise is None:
        raise DoesNotFit("this null text holds no noise to replay: save it with noise=True")
    require_same_denoiser(null_text.about, model)
    if [step.timestep for step in steps] != list(null_text.timesteps):
        raise DoesNotFit("the model's timesteps are not the recorded ones: exact replay needs the same scheduler")
    if tuple(null_text.latents.shape) != model.latent_shape:
        raise DoesNotFit(
            f"the recorded latents have shape {tuple(null_text.latents.shape)}, this model's {model.latent_shape}"
        )
    return null_text.latents, null_text.noise


def recorded_scheduler(scheduler: Any, model: GuidedModel, steps: Sequence[NoiseStep], noise: Sequence[Tensor]) -> Any:
    """Return a scheduler for a stock pipeline that takes the model's steps with recorded noise.

    Args:
        scheduler: the pipeline's own, whose class it subclasses.
        model: the model of that pipeline.
        steps: the denoising steps.
        noise: one (C, h, w) per step.
    """
    base: Any = type(scheduler)

    class Recorded(base):  # type: ignore[misc]  # a subclass, because pipelines look at their scheduler's class
        init_noise_sigma = 1.0
        timesteps: Any
        _taken = 0

        @wraps(base.set_timesteps)  # pipelines look at its arguments
        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            super().set_timesteps(*args, **kwargs)
            if len(self.timesteps) != len(steps):
                raise InvalidValue(
                    f"must be {len(steps)}, the recorded steps, for exact replay, not {len(self.timesteps)}",
                    "num_inference_steps",
                )
            if [float(t) for t in self.timesteps] != [step.timestep for step in steps]:
                self.timesteps = torch.tensor([step.timestep for step in steps]).to(self.timesteps.device)
            self._taken = 0

        def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
            del timestep
            return sample * steps[self._taken].input_gain

        def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> tuple[Tensor]:
            del timestep, return_dict
            index, self._taken = self._taken, self._taken + 1
            x = model.from_pipeline(sample)
            mean, std = model.step_distribution(x, model.from_pipeline(model_output), steps[index])
            return (model.to_pipeline(mean + std * noise[index][None].to(mean)),)

    return Recorded.from_config(scheduler.config)


def in_batch_of_copies(position: BatchPosition, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
    """Evaluate `function` of one-row arguments, (1, ...) -> (1, ...), at a position in a batch of copies of the row."""
    size, row = position
    answer: Tensor = function(*_copies(args, size), **_copies(kwargs, size))
    return answer[row : row + 1]


def in_batch_layout(forward: Callable[..., Any], position: Callable[[int], BatchPosition]) -> Callable[..., Any]:
    """Return a denoiser's forward (or a decoder's decode) that evaluates each row at `position(row)`.

    Rows are split off every argument that has as many rows as the first.
    """

    def split(*args: Any, **kwargs: Any) -> tuple[Tensor]:
        count = len(args[0] if args else next(iter(kwargs.values())))
        kwargs["return_dict"] = False
        rows = [
            in_batch_of_copies(
                position(i), lambda *a, **k: forward(*a, **k)[0], *_row(args, i, count), **_row(kwargs, i, count)
            )
            for i in range(count)
        ]
        return (torch.cat(rows),)

    return split


def _row(value: Any, index: int, count: int) -> Any:
    """Take row `index` of every tensor or list of `count` rows."""
    return _each(value, lambda rows: rows[index : index + 1] if _has_rows(rows, count) else rows)


def _copies(value: Any, size: int) -> Any:
    """Repeat every tensor or list of one row `size` times."""

    def repeated(row: Any) -> Any:
        if not _has_rows(row, 1):
            return row
        return row * size if isinstance(row, list) else row.repeat(size, *[1] * (row.dim() - 1))

    return _each(value, repeated)


def _has_rows(value: Any, count: int) -> bool:
    return len(value) == count if isinstance(value, list) else value.dim() > 0 and len(value) == count


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change every tensor and list in nested dictionaries and tuples."""
    if isinstance(value, Tensor | list):
        return change(value)
    if isinstance(value, dict):
        return {name: _each(inner, change) for name, inner in value.items()}
    return tuple(_each(inner, change) for inner in value) if isinstance(value, tuple) else value
