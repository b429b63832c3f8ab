"""Learnt null texts at work again in our own sampler, on other seeds and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.embeddings import is_free, transform
from nulltta.algorithm.objective import predict_branches
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel, NoiseStep
from nulltta.errors import InvalidValue
from nulltta.models import load_model
from nulltta.null_text.batch_layout import BatchLayout
from nulltta.null_text.first_version import renamed
from nulltta.null_text.row_by_row import in_batch_of_copies
from nulltta.null_text.value import NullText

SAMPLING = ("num_inference_steps", "guidance_scale", "eta")  # the settings that replay has a use for


@torch.no_grad()
def replay(
    model: GuidedModel | Any,
    null_text: NullText,
    *,
    prompt: str | None = None,
    seeds: Sequence[int] = (0,),
    config: NullTTAConfig | None = None,
    exact: bool = False,
    plain: bool = False,
) -> Tensor:
    """Images (N, 3, H, W) sampled under a learnt null text: no reward, no gradient, 2T denoiser branches an image.

    Args:
        model: a `GuidedModel`, a live diffusers pipeline, or what `load_model` takes.
        prompt: the one it was learnt for if None; another is transfer.
        seeds: one image a seed, from plain sampling's noise of that seed.
        config: steps, guidance scale and η; the ones it was learnt with if None. At another number of steps each
            step takes the φ' of the nearest timestep.
        exact: one image, from the recorded initial latent and step noise, instead of the seeds' own. Of a run of one
            prompt the networks see batches of the run's sizes, K candidates, which makes the image bit for bit the
            run's on the same kind of machine; of a run of several, or of another machine, it is so up to rounding.
        plain: with φ instead of φ': the same images as plain sampling makes, to compare with.

    Errors: `NullTTAError` if the null text does not fit the model, or `exact` lacks the noise or the steps.
    """
    model = model if isinstance(model, GuidedModel) else load_model(model)
    null_text.require_fit(model)
    null_text = renamed(null_text, model)
    config = config or recorded_config(null_text)
    steps = [_with_eta(step, config.eta) for step in model.schedule(config.num_inference_steps)]
    count = 1 if exact else len(seeds)
    cond, phi = model.encode([prompt or null_text.prompt] * count, [""] * count)
    _require_shapes(null_text.null, phi)
    device = next(iter(cond.values())).device
    if exact:
        recorded, draws = _recording(null_text, [step.timestep for step in steps])
        _require_latents(recorded, model)
        places = BatchLayout.recorded(null_text.about, len(steps))
        x = recorded[None].to(device)
    else:
        x = randomness.initial_latents(model, list(seeds), 1)[:, 0].to(device)
    for i, step in enumerate(steps):
        null = _rows(null_text.null if plain else null_text.at(step.timestep), count, device)
        if exact:
            eps_null = in_batch_of_copies(places.null(i), model.predict, x, step, null)
            eps_cond = in_batch_of_copies(places.cond(i), model.predict, x, step, cond)
            drawn = draws[i][None].to(device)
        else:
            eps_null, eps_cond = predict_branches(model, x, step, null, cond)
            drawn = randomness.seeded(seeds, i, x, 1)[:, 0]
        mean, std = model.step_distribution(x, model.guide(eps_null, eps_cond, config.guidance_scale), step)
        x = mean + std * drawn
    return in_batch_of_copies(places.decoded, model.decode, x) if exact else model.decode(x)


def recorded_steps(
    null_text: NullText, model: GuidedModel, eta: float
) -> tuple[list[NoiseStep], Sequence[Tensor]]:  # fmt: skip
    """The model's steps at the recorded number of them, and the noise (C, h, w) that was drawn at each.

    Raises:
        InvalidValue: if no noise was recorded, or the steps are others.
    """
    steps = [replace(step, eta=eta) for step in model.schedule(recorded_config(null_text).num_inference_steps)]
    return steps, _recording(null_text, [step.timestep for step in steps])[1]


def _recording(null_text: NullText, timesteps: Sequence[float]) -> tuple[Tensor, Sequence[Tensor]]:
    if null_text.latents is None or null_text.noise is None:
        raise InvalidValue("this null text holds no noise to replay: save it with noise=True")
    if list(timesteps) != list(null_text.timesteps):
        raise InvalidValue("the model's timesteps are not the recorded ones: exact replay needs the same scheduler")
    return null_text.latents, null_text.noise


def _require_shapes(learnt: Embedding, encoded: Embedding) -> None:
    """Refuse a null text that is no embedding of this model's kind; its number of tokens may be another."""

    def kind(name: str, shape: Sequence[int], free: bool) -> Any:
        return name, free, len(shape), tuple(shape[-1:]) if free else ()

    ours = sorted(kind(name, tensor.shape, is_free(tensor)) for name, tensor in learnt.items())
    theirs = sorted(kind(name, tensor.shape[1:], is_free(tensor)) for name, tensor in encoded.items())
    if ours != theirs:
        shapes = (
            {name: tuple(t.shape) for name, t in learnt.items()},
            {n: tuple(t.shape[1:]) for n, t in encoded.items()},
        )
        raise InvalidValue(
            f"the null text does not fit this model: its tensors are {shapes[0]}, the model's {shapes[1]}"
        )


def _require_latents(recorded: Tensor, model: GuidedModel) -> None:
    if tuple(recorded.shape) != model.latent_shape:
        raise InvalidValue(
            f"the recorded latents have shape {tuple(recorded.shape)}, this model's {model.latent_shape}"
        )


def recorded_config(null_text: NullText) -> NullTTAConfig:
    """The settings of sampling that it was learnt with; others are the published ones, and play no part in replay.

    Raises:
        NullTTAError: its file gives one of them a value that none takes.
    """
    config = null_text.about.get("config", {})
    if not isinstance(config, Mapping):
        raise InvalidValue("the null text's record of its settings makes no sense")
    return NullTTAConfig(**{name: config[name] for name in SAMPLING if name in config})


def _rows(null: Embedding, count: int, device: torch.device) -> dict[str, Tensor]:
    return transform(null, lambda tensor: tensor[None].repeat(count, *[1] * tensor.dim()).to(device))


def _with_eta(step: Any, eta: float) -> Any:
    return replace(step, eta=eta)
