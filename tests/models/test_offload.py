"""Offloading: parts of a pipeline are away from the device while others work, and results stay the same.

Without a GPU the moves of diffusers' model offloading go from the CPU to the CPU; its sequential offloading takes
weights away for real, and `_Away` does so for whole networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import CpuOffload, UserCpuOffloadHook, add_hook_to_module

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.models.offload import OFFLOADS, place

from ..tiny import stable_diffusion
from ..tiny_families import FAMILIES

SHORT = NullTTAConfig(num_inference_steps=2, inner_steps=(2, 2), num_particles=2, guidance_scale=3.0)
CPU = torch.device("cpu")


@pytest.mark.parametrize("offload", OFFLOADS)
def test_every_kind_gives_the_same_image_and_leaves_the_pipeline_usable(offload: str, checkpoint: Path) -> None:
    expected = align(nulltta.load_model(checkpoint), "a cat", "brightness", config=SHORT).images
    pipeline = stable_diffusion(checkpoint)
    place(pipeline, CPU, offload)
    result = align(pipeline, "a cat", "brightness", config=SHORT)
    torch.testing.assert_close(result.images, expected, rtol=0, atol=1e-5)
    pipeline.set_progress_bar_config(disable=True)
    with result.null_text[0].apply(pipeline):
        assert pipeline("a cat", num_inference_steps=2, guidance_scale=3.0, output_type="pt").images.isfinite().all()


def test_text_encoders_alone_are_offloaded_where_that_is_asked_for(tmp_path: Path) -> None:
    pipeline: Any = FAMILIES["sdxl"].load(FAMILIES["sdxl"].save(tmp_path / "model")).pipeline
    place(pipeline, CPU, "text-encoders")
    assert [hook.model for hook in pipeline._all_hooks] == [pipeline.text_encoder, pipeline.text_encoder_2]
    assert not any(hasattr(part, "_hf_hook") for part in (pipeline.unet, pipeline.vae))


class _Away(CpuOffload):
    """Takes a network's weights away for real: what is read of them meanwhile is not a number."""

    def init_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        if not hasattr(self, "kept"):
            self.kept = {name: weight.data for name, weight in module.named_parameters()}
        for weight in module.parameters():
            weight.data = torch.full_like(weight.data, torch.nan)
        return module

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.prev_module_hook is not None:
            self.prev_module_hook.offload()
        for name, weight in module.named_parameters():
            weight.data = self.kept[name]
        return args, kwargs


def test_a_denoiser_stays_while_the_decoders_backward_pass_runs_and_text_encoders_leave(checkpoint: Path) -> None:
    expected = align(nulltta.load_model(checkpoint), "a cat", "brightness", config=SHORT).images
    pipeline, hook = stable_diffusion(checkpoint), None
    pipeline._all_hooks = []
    for part in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
        own = _Away("cpu", hook)
        add_hook_to_module(part, own)
        hook = UserCpuOffloadHook(part, own)
        pipeline._all_hooks.append(hook)
    hooks = list(pipeline._all_hooks)
    pipeline.maybe_free_model_hooks = lambda: [each.offload() for each in hooks]
    result = align(pipeline, "a cat", "brightness", config=SHORT)
    torch.testing.assert_close(result.images, expected, rtol=0, atol=1e-5)
    assert all(bool(weight.isnan().all()) for weight in pipeline.text_encoder.parameters())
    assert all(each.hook.prev_module_hook is not None for each in hooks[1:])  # the chain is left as it was found


def test_layers_that_are_away_keep_no_weights_for_the_backward_pass(checkpoint: Path) -> None:
    """Else an inner step would hold the weights of every layer at once, which offloading is there to avoid."""
    pipeline = stable_diffusion(checkpoint)
    place(pipeline, CPU, "sequential")
    model: Any = nulltta.load_model(pipeline)
    assert model.recompute
    assert not nulltta.load_model(stable_diffusion(checkpoint)).recompute  # type: ignore[attr-defined]


def test_a_half_precision_decoder_is_upcast_where_its_layers_are_away(tmp_path: Path) -> None:
    case = FAMILIES["sdxl"]
    folder = case.save(tmp_path / "model")
    images = []
    for offload in ("none", "sequential"):
        pipeline: Any = nulltta.load_model(folder, device="cpu", dtype=torch.float16, **case.call).pipeline  # type: ignore[attr-defined]
        place(pipeline, CPU, offload)
        model = nulltta.load_model(pipeline, **case.call)
        x0 = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(0))
        images.append(model.decode(x0))
    assert torch.equal(*images)


def test_an_unknown_kind_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(NullTTAError, match="offload must be one of none, text-encoders, model, sequential, not 'disk'"):
        nulltta.load_model(tmp_path, offload="disk")


def test_load_model_offloads(checkpoint: Path) -> None:
    model: Any = nulltta.load_model(checkpoint, device="cpu", offload="sequential")
    assert next(model.pipeline.unet.parameters()).device.type == "meta"
