"""The null branch of a stock call is known from the recording of the model, not guessed from its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullText, NullTTAConfig, NullTTAError, align

from ..tiny_families import save_flux, save_sdxl

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' Euler scheduler
SETTINGS = NullTTAConfig(num_inference_steps=3, inner_steps=(2, 2), num_particles=1, learning_rate=0.05)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


def _learnt(model: Any) -> NullText:
    model.pipeline.set_progress_bar_config(disable=True)
    return align(model, "a cat", brightness, config=SETTINGS).null_text[0]


def test_an_unguided_call_of_two_equal_latents_is_left_alone(checkpoint: Path) -> None:
    model = nulltta.load_model(checkpoint)
    learnt = _learnt(model)
    latents = model.initial_latents(1, torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    call = {"num_inference_steps": 3, "guidance_scale": 1.0, "latents": latents, "output_type": "pt"}
    plain = model.pipeline(["a cat"] * 2, **call).images
    found = []
    with pytest.raises(NullTTAError, match="no classifier-free guidance"), learnt.apply(model.pipeline):
        found.append(model.pipeline(["a cat"] * 2, **call).images)
    assert torch.equal(found[0], plain)


def test_a_failed_call_does_not_swap_the_branches_of_the_next(tmp_path: Path) -> None:
    model = nulltta.load_model(save_flux(tmp_path / "model"), device="cpu", height=16, width=16)
    learnt = _learnt(model)
    call = {"num_inference_steps": 3, "true_cfg_scale": 4.0, "negative_prompt": "", "height": 16, "width": 16}
    call |= {
        "output_type": "pt",
        "latents": model.to_pipeline(model.initial_latents(1, torch.Generator().manual_seed(0))),
    }
    with learnt.apply(model.pipeline):
        expected = model.pipeline("a cat", **call).images

    transformer, evaluations = model.pipeline.transformer, []

    def fails_between_the_branches(*_: Any) -> None:
        evaluations.append(1)
        if len(evaluations) == 1:
            raise KeyboardInterrupt

    with learnt.apply(model.pipeline):
        hook = transformer.register_forward_hook(fails_between_the_branches)
        with pytest.raises(KeyboardInterrupt):
            model.pipeline("a cat", **call)
        hook.remove()
        found = model.pipeline("a cat", **call).images
    assert torch.equal(found, expected)


def test_a_null_text_of_the_first_version_still_works(tmp_path: Path) -> None:
    """Its tensors were named by what they are: tokens and pooled."""
    model = nulltta.load_model(save_sdxl(tmp_path / "model"), device="cpu")
    learnt = _learnt(model)
    old = {"encoder_hidden_states": "tokens", "added_cond_kwargs.text_embeds": "pooled"}
    values = [{old[name]: tensor for name, tensor in value.items()} for value in learnt.values]
    null = {old[name]: tensor for name, tensor in learnt.null.items()}
    about = {key: value for key, value in learnt.about.items() if key != "where"}
    replace(learnt, values=values, null=null, about=about, latents=None, noise=None).save(tmp_path / "old.safetensors")
    learnt.save(tmp_path / "new.safetensors")
    first, second = (NullText.load(tmp_path / f"{name}.safetensors") for name in ("old", "new"))
    call = {"num_inference_steps": 3, "output_type": "pt", "negative_prompt": ""}
    call["latents"] = model.initial_latents(1, torch.Generator().manual_seed(0))
    images = []
    for kept in (first, second):
        with kept.apply(model.pipeline):
            images.append(model.pipeline("a cat", **call).images)
    assert torch.equal(*images)
    plain = model.pipeline("a cat", **call).images
    assert float((images[0] - plain).abs().max()) > 1e-4
