"""A pipeline that the caller goes on using: loading a model of it and aligning leave it exactly as it was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nulltta
from nulltta import NullTTAConfig, align
from nulltta.testing import FamilyCase

from ..tiny_families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' DPM solver
SHORT = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=2, guidance_scale=3.0)


def _pipeline(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    index = json.loads((folder / "model_index.json").read_text())
    absent = {name: None for name, value in index.items() if value == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(folder, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _state(pipeline: Any) -> dict[str, Any]:
    """Everything about a pipeline that a caller could notice, tensors as their address, version, layout and flag."""
    found: dict[str, Any] = {"scheduler": (id(pipeline.scheduler), dict(pipeline.scheduler.config))}
    found["timesteps"] = pipeline.scheduler.timesteps.tolist()
    for part, component in pipeline.components.items():
        if not isinstance(component, nn.Module):
            found[part] = id(component)
            continue
        for name, module in component.named_modules():
            plain = {key: value for key, value in vars(module).items() if not key.startswith("_") or "hook" in key}
            plain["_modules"] = list(module._modules)
            plain["_gradient_checkpointing_func"] = vars(module).get("_gradient_checkpointing_func")
            plain["_conv_forward"] = vars(module).get("_conv_forward")
            plain["tensors"] = {
                key: (id(tensor), tensor.data_ptr(), tensor._version, tensor.stride(), tensor.requires_grad)
                for key, tensor in (*module._parameters.items(), *module._buffers.items())
                if tensor is not None
            }
            found[f"{part}.{name}"] = (id(module), type(module), {key: repr(value) for key, value in plain.items()})
    return found


@pytest.mark.parametrize("case", FAMILIES.values(), ids=str)
def test_a_pipeline_is_left_as_it_was_found(case: FamilyCase, tmp_path: Path) -> None:
    pipeline = _pipeline(case.save(tmp_path / "model"))
    model = case.load(pipeline)
    model.encode(["a cat"], [""])  # transformers installs hooks of its own in a text encoder that is used
    before = _state(pipeline)
    model = case.load(pipeline)
    assert _state(pipeline) == before
    align(model, "a cat", "brightness", config=SHORT, seed=0)
    assert _state(pipeline) == before


def test_a_pipeline_in_training_with_checkpointing_is_aligned_and_goes_on_training(checkpoint: Path) -> None:
    pipeline = _pipeline(checkpoint)
    expected = align(nulltta.load_model(checkpoint), "a cat", "brightness", config=SHORT, seed=0)
    pipeline.unet.train()
    pipeline.unet.enable_gradient_checkpointing()
    before = _state(pipeline)
    model = nulltta.load_model(pipeline)
    result = align(model, "a cat", "brightness", config=SHORT, seed=0)
    torch.testing.assert_close(result.images, expected.images, rtol=0, atol=1e-5)
    assert _state(pipeline) == before
    x, step = model.initial_latents(1, torch.Generator().manual_seed(0)), model.schedule(4)[1]
    tokens = model.encode([""], [""])[1]["encoder_hidden_states"]
    pipeline.unet(x, step.timestep, encoder_hidden_states=tokens).sample.sum().backward()
    assert all(weight.grad is not None for weight in pipeline.unet.conv_in.parameters())


def test_sequential_offloading_gives_the_same_image(checkpoint: Path) -> None:
    """Where accelerate takes every layer's weights away again after its forward pass."""
    from accelerate import cpu_offload

    pipeline = _pipeline(checkpoint)
    cpu_offload(pipeline.vae, torch.device("cpu"))
    model = nulltta.load_model(pipeline)
    x0 = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    gradients = [torch.autograd.grad(each.decode(x0).sum(), x0)[0] for each in (model, nulltta.load_model(checkpoint))]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
    assert bool(gradients[0].abs().sum() > 0)
