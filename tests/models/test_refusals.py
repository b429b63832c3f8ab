"""Models that were distilled to run without guidance are refused under classifier-free guidance, with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align, load_model

from ..tiny_families import save_flux, save_qwen


@pytest.fixture
def pipeline(checkpoint: Path) -> Any:
    """A live Stable Diffusion, each time a new one."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None, requires_safety_checker=False)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stabilityai/sdxl-turbo", "turbo"),
        ("stabilityai/stable-diffusion-3.5-large-turbo", "turbo"),
        ("ByteDance/SDXL-Lightning", "Lightning"),
        ("ByteDance/Hyper-SD", "Hyper-SD"),
        ("models/hyper_sd15_4step/", "hyper_sd"),
        ("latent-consistency/lcm-sdxl", "lcm"),
        ("SimianLuo/LCM_Dreamshaper_v7", "LCM"),
        ("black-forest-labs/FLUX.1-schnell", "schnell"),
        ("tianweiy/DMD2", "DMD2"),
        ("models/sdxl_dmd_4step", "dmd"),
        ("h1t/TCD-SD15", "TCD"),
        ("Lightricks/LTX-Video-0.9.7-distilled", "distill"),
        ("Efficient-Large-Model/Sana_Sprint_1.6B", "Sprint"),
    ],
)
@pytest.mark.parametrize("part", ["pipeline", "unet"])
def test_a_name_that_says_it_is_refused(pipeline: Any, name: str, said: str, part: str) -> None:
    (pipeline if part == "pipeline" else pipeline.unet).register_to_config(_name_or_path=name)
    with pytest.raises(NullTTAError, match=rf"cfg: .*guidance-distilled \(its name says '{said}'\).*; choose nag"):
        align(load_model(pipeline), "a cat", "brightness")


@pytest.mark.parametrize(
    "name",
    [
        "stabilityai/stable-diffusion-xl-base-1.0",
        "org/flux-de-distilled",
        "org/DeDistilled",
        "lightning/rooms",
        "org/helcm",
    ],
)
def test_other_names_are_not(pipeline: Any, name: str) -> None:
    pipeline.register_to_config(_name_or_path=name)
    assert load_model(pipeline).distilled is None


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_a_scheduler_for_distilled_models_is_refused(pipeline: Any, name: str) -> None:
    import diffusers

    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    with pytest.raises(NullTTAError, match=rf"guidance-distilled \(its scheduler is {name}\)") as caught:
        align(load_model(pipeline), "a cat", "brightness")
    assert caught.value.field == "guidance"


def test_a_denoiser_that_takes_the_scale_as_an_input_is_refused(pipeline: Any) -> None:
    from diffusers import UNet2DConditionModel

    pipeline.unet = UNet2DConditionModel.from_config(pipeline.unet.config, time_cond_proj_dim=8)
    with pytest.raises(NullTTAError, match=r"guidance-distilled \(its denoiser takes the guidance scale as an input"):
        align(load_model(pipeline), "a cat", "brightness")


def test_a_class_for_distilled_models_is_refused_before_it_loads(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SanaSprintPipeline"}))
    with pytest.raises(NullTTAError, match=r"SanaSprintPipeline is not supported: .* guidance-distilled"):
        load_model(tmp_path)


def test_schnell_is_refused_whatever_its_name_and_a_flux_with_guidance_input_is_not(tmp_path: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    unshifted = FlowMatchEulerDiscreteScheduler(shift=1.0)
    folder = save_flux(tmp_path / "fast", transformer=transformer, scheduler=unshifted)
    with pytest.raises(NullTTAError, match=r"guidance-distilled \(a Flux without guidance input"):
        align(load_model(folder, device="cpu"), "a cat", "brightness")
    assert load_model(save_flux(tmp_path / "dev"), device="cpu").distilled is None


def test_a_qwen_with_a_guidance_input_is_refused(tmp_path: Path) -> None:
    pipeline: Any = load_model(save_qwen(tmp_path / "model"), device="cpu").pipeline  # type: ignore[attr-defined]
    pipeline.transformer.register_to_config(guidance_embeds=True)
    with pytest.raises(NullTTAError, match=r"guidance-distilled \(guidance_embeds\)"):
        align(load_model(pipeline), "a cat", "brightness")


def test_a_flux_call_with_its_distilled_guidance_alone_is_an_error_under_a_null_text(tmp_path: Path) -> None:
    model: Any = nulltta.load_model(save_flux(tmp_path / "model"), device="cpu", height=16, width=16)
    config = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=1)
    learnt = align(model, "a cat", lambda images, prompts: images.flatten(1).mean(1), config=config).null_text[0]
    model.pipeline.set_progress_bar_config(disable=True)
    call = {"height": 16, "width": 16, "num_inference_steps": 2, "guidance_scale": 3.5}
    for unguided in ({}, {"true_cfg_scale": 4.0}, {"negative_prompt": ""}):  # it needs both
        with pytest.raises(NullTTAError, match="no classifier-free guidance"), learnt.apply(model.pipeline):
            model.pipeline("a cat", **call, **unguided)
