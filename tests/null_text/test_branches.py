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

from ..tiny_families import save_flux, save_sd3, save_sdxl

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


def test_unguided_calls_in_a_block_are_left_alone_and_do_not_swap_the_branches_of_a_guided_one(tmp_path: Path) -> None:
    model = nulltta.load_model(save_flux(tmp_path / "model"), device="cpu", height=16, width=16)
    learnt = _learnt(model)
    latents = model.to_pipeline(model.initial_latents(1, torch.Generator().manual_seed(0)))
    call = {"num_inference_steps": 3, "height": 16, "width": 16, "output_type": "pt", "latents": latents}
    guided = {**call, "true_cfg_scale": 4.0, "negative_prompt": ""}
    plain = model.pipeline("a cat", **call).images
    with learnt.apply(model.pipeline):
        expected = model.pipeline("a cat", **guided).images
    with learnt.apply(model.pipeline):
        unguided = [model.pipeline("a cat", **call).images for _ in range(3)]
        found = model.pipeline("a cat", **guided).images
        unguided.append(model.pipeline("a cat", **call).images)
    assert all(torch.equal(images, plain) for images in unguided)
    assert torch.equal(found, expected)


def test_skip_layer_guidance_beside_equal_latents_gets_no_null_text(tmp_path: Path) -> None:
    """Its further call has one row per image: with two images as many as a guided call of one."""
    model = nulltta.load_model(save_sd3(tmp_path / "model"), device="cpu")
    learnt = _learnt(model)
    latents = model.initial_latents(1, torch.Generator().manual_seed(0))
    call = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "pt"}
    call |= {"skip_guidance_layers": [1], "skip_layer_guidance_stop": 1.0}
    with learnt.apply(model.pipeline):
        one = model.pipeline("a cat", latents=latents, **call).images
        two = model.pipeline(["a cat"] * 2, latents=latents.repeat(2, 1, 1, 1), **call).images
    torch.testing.assert_close(two, one.repeat(2, 1, 1, 1), rtol=0, atol=1e-5)
    plain = {key: value for key, value in call.items() if not key.startswith("skip")}
    with learnt.apply(model.pipeline):
        assert float((model.pipeline("a cat", latents=latents, **plain).images - one).abs().max()) > 1e-4


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
