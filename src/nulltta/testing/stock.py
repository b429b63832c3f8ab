"""The stock call of a pipeline from the noise of a seed, to compare a model's images with."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from nulltta.algorithm.randomness import generator
from nulltta.config import NullTTAConfig
from nulltta.models import ObservedModel
from nulltta.models.draws import fixed_draws
from nulltta.models.recording import at_scale
from nulltta.models.restoring import overruled


def stock_images(model: ObservedModel, prompt: str, negative: str, config: NullTTAConfig, seed: int) -> Tensor:
    """Return the images of the pipeline's own call, from the first latents that a run with this seed starts from.

    Whatever else the call draws, such as the noise of a picture's encoding, is what a model's recordings see, because
    stock calls draw it from the same generator as the first latents. The steps are the scheduler's own, which are this
    package's at η = 0 if the scheduler looks at no earlier step and draws nothing.

    Args:
        model: the model of the pipeline.
        prompt: the prompt.
        negative: its negative prompt.
        config: the number of steps and the guidance scale; under "nag" the call's own guidance is off.
        seed: of the run.
    """
    found, steps = model.found, config.num_inference_steps
    shape = (1, *found.drawn)
    noise = torch.randn(shape, generator=generator(seed, "initial", 0), dtype=torch.float32)
    call = model.stock.arguments([prompt], [negative], model.asked(steps))
    off = 0.0 if found.rule == "from zero" else 1.0
    scale = off if config.guidance == "nag" else config.guidance_scale
    guider = at_scale(model.pipeline, scale)
    if not model.stock.second and guider is None:  # of a second call, the scale is an input of the denoiser
        call[model.stock.scale_name] = scale
    model.pipeline.set_progress_bar_config(disable=True)
    with ExitStack() as undo:
        if guider is not None:
            undo.enter_context(overruled(model.pipeline, "guider", guider))
        undo.enter_context(fixed_draws({found.place: noise}))
        output = model.pipeline(**call)
    return _images(output)


def _images(output: Any) -> Tensor:
    first = output[0]
    images = torch.stack([torch.as_tensor(each) for each in first]) if isinstance(first, list) else first
    return torch.as_tensor(images).float()
