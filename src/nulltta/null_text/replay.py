"""Sampling under a learnt null text in this package's own sampler, also on other seeds and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nulltta.algorithm import embeddings, randomness
from nulltta.algorithm.embeddings import is_free
from nulltta.algorithm.objective import predict_branches
from nulltta.algorithm.sampling import denoise
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel
from nulltta.errors import DoesNotFit, InvalidValue
from nulltta.models import load_model
from nulltta.models.nag import with_guidance, without_prompt
from nulltta.null_text.exact import BatchLayout, in_batch_of_copies, recorded_config, recording, steps_of
from nulltta.null_text.first_version import renamed
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.value import NullText
from nulltta.prompts import EncodedPrompt


@torch.no_grad()
def replay(
    model: GuidedModel | Any,
    null_text: NullText | FittedNullText,
    *,
    prompt: str | None = None,
    seeds: Sequence[int] = (0,),
    config: NullTTAConfig | None = None,
    exact: bool = False,
    plain: bool = False,
) -> Tensor:
    """Sample images (N, 3, H, W) under a learnt null text, without a reward or a gradient.

    It takes 2T denoiser branches per image.

    Args:
        model: a `GuidedModel`, a live diffusers pipeline, or what `load_model` takes.
        null_text: the null text.
        prompt: the one for which it was learnt if None; another is transfer. A fitted null text needs one.
        seeds: one image per seed, from plain sampling's noise of that seed.
        config: steps, guidance scale and η; those with which it was learnt if None. At another number of steps each
            step takes the φ' of the nearest timestep.
        exact: sample one image from the recorded initial latent and step noise instead. For a run of one prompt the
            networks see batches of the run's sizes, so that the image is bit for bit the run's on the same kind of
            machine; for a run of several prompts, or on another machine, it is so up to rounding.
        plain: use φ instead of φ', which gives plain sampling's images, to compare with.

    Raises:
        DoesNotFit: if the null text does not fit the model or, with `exact`, holds no noise that fits.
        InvalidValue: if its file records impossible settings, or a fitted null text is given no prompt.
        LoadError: if the model does not load.
    """
    model = model if isinstance(model, GuidedModel) else load_model(model)
    null_text.require_fit(model)
    learnt = renamed(null_text, model) if isinstance(null_text, NullText) else null_text
    shown, count = prompt or learnt.prompt, 1 if exact else len(seeds)
    if not shown:
        raise InvalidValue("is needed: the null text was fitted for all prompts", "prompt")
    config = config or recorded_config(null_text.about)
    try:
        model = with_guidance(model, config)
    except InvalidValue as error:
        if config.guidance != "cfg":
            raise
        raise DoesNotFit(
            "the null text acts through classifier-free guidance, which this model was distilled to sample without "
            f"({model.distilled}): replay it with the model that it was learnt for"
        ) from error
    # φ' takes the negative prompt's place; a fitted one counts from that of a call without one.
    unused = shown if isinstance(shown, EncodedPrompt) and isinstance(learnt, NullText) else ""
    cond, phi = model.encode([shown] * count, config.negatives([shown], [unused]) * count)
    steps = steps_of(model, config)
    device = next(iter(cond.values())).device
    if isinstance(learnt, NullText):
        _require_shapes(learnt.null, without_prompt(phi))
        phi = {**phi, **embeddings.copies(learnt.null, count, device)}

    def null(i: int) -> Embedding:
        return phi if plain else {**phi, **learnt.embedding(steps[i].timestep, phi, cond)}

    if not exact:
        x = randomness.initial_latents(model, list(seeds), 1, len(steps))[:, 0].to(device)

        def branches(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            return predict_branches(model, x, steps[i], null(i), cond)

        def noise(i: int, x: Tensor) -> Tensor:
            return randomness.seeded(seeds, i, x, 1)[:, 0]

        *_, (_, _, x) = denoise(model, x, steps, branches, noise, config.guidance_scale)
        return model.decode(x)

    if not isinstance(learnt, NullText):
        raise DoesNotFit("a fitted null text holds no noise to replay: leave out exact")
    latents, recorded = recording(learnt, model, steps)
    layout, x = BatchLayout.recorded(learnt.about, len(steps)), latents[None].to(device)

    def exact_branches(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        eps_null = in_batch_of_copies(layout.null(i), model.predict, x, steps[i], null(i))
        if model.predicts_guided:
            return eps_null, eps_null
        return eps_null, in_batch_of_copies(layout.cond(i), model.predict, x, steps[i], cond)

    def recorded_noise(i: int, x: Tensor) -> Tensor:
        return recorded[i][None].to(x.device)

    *_, (_, _, x) = denoise(model, x, steps, exact_branches, recorded_noise, config.guidance_scale)
    return in_batch_of_copies(layout.decoded, model.decode, x)


def _require_shapes(learnt: Embedding, encoded: Embedding) -> None:
    """Refuse a null text with other tensors than the model's embeddings; the number of tokens may differ."""

    def kind(name: str, shape: Sequence[int], free: bool) -> Any:
        return name, free, len(shape), tuple(shape[-1:]) if free else ()

    ours = sorted(kind(name, tensor.shape, is_free(tensor)) for name, tensor in learnt.items())
    theirs = sorted(kind(name, tensor.shape[1:], is_free(tensor)) for name, tensor in encoded.items())
    if ours != theirs:
        shapes = (
            {name: tuple(t.shape) for name, t in learnt.items()},
            {n: tuple(t.shape[1:]) for n, t in encoded.items()},
        )
        raise DoesNotFit(f"the null text does not fit this model: its tensors are {shapes[0]}, the model's {shapes[1]}")
