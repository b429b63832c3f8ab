"""Distilled models under normalized attention guidance, on tiny checkpoints: learnt, replayed and applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nulltta import NullText, NullTTAConfig, NullTTAError, align, load_model
from nulltta.null_text.replay import replay
from nulltta.testing.stock import stock_images

from ..tiny_families import FAMILIES, save_flux
from ..tiny_pipelines import PIPELINES

pytestmark = [
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # NumPy's, in diffusers' Euler scheduler
]
SETTINGS = NullTTAConfig.preset("2-step", inner_steps=(1, 1), num_particles=1, eta=0.0)


@dataclass(frozen=True)
class Distilled:
    """A kind of distilled model.

    Attributes:
        name: the name of its checkpoint.
        family: the family, or the class of the pipeline, whose tiny checkpoint stands for it.
        change: what else is done to the pipeline.
        call: further arguments of its call.
    """

    name: str
    family: str
    change: Callable[[Any], None] = lambda pipeline: None
    call: dict[str, Any] = field(default_factory=dict)

    def load(self, folder: Path) -> tuple[Any, dict[str, Any]]:
        from diffusers import DiffusionPipeline

        if self.family in FAMILIES:
            case = FAMILIES[self.family]
            saved = save_schnell(folder) if self.name == "FLUX.1-schnell" else case.save(folder)
            pipeline, call = DiffusionPipeline.from_pretrained(saved), dict(case.call)
        else:
            pipeline, call = next(case for case in PIPELINES if case.name == self.family).load(folder)
        if self.name:
            pipeline.register_to_config(_name_or_path=self.name)
        self.change(pipeline)
        return pipeline, {**call, **self.call}


def save_schnell(folder: Path) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return save_flux(folder, transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0))


def _lcm_lora(pipeline: Any) -> None:
    from diffusers import LCMScheduler
    from peft import LoraConfig

    torch.manual_seed(0)
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_out.0"], init_lora_weights=False))
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config, original_inference_steps=50)


def _turbo(pipeline: Any) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    config = {**pipeline.scheduler.config, "timestep_spacing": "trailing"}
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(config)


def _distilled(pipeline: Any) -> None:
    pipeline.register_to_config(is_distilled=True)


CASES = [
    Distilled("", "flux", call={"guidance_scale": 3.5}),  # FLUX.1-dev as published: its scale is an input
    Distilled("FLUX.1-schnell", "flux"),
    Distilled("", "Flux2Pipeline"),  # FLUX.2-dev, likewise
    Distilled("FLUX.2-klein-4B", "Flux2KleinPipeline", _distilled),
    Distilled("Z-Image-Turbo", "ZImagePipeline"),
    Distilled("sdxl-turbo", "sdxl", _turbo),
    Distilled("LCM-LoRA", "sd", _lcm_lora),
    Distilled("stable-diffusion-3.5-large-turbo", "sd3"),
    Distilled("Wan2.1-lightning", "wan"),
    Distilled("Qwen-Image-Lightning", "qwen"),
]
STOCHASTIC = ("sdxl-turbo", "LCM-LoRA")
"""Those whose own steps draw noise, so that the stock picture is another one."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name or case.family)
def test_a_null_text_is_learnt_and_its_picture_is_the_stock_calls(case: Distilled, tmp_path: Path) -> None:
    pipeline, call = case.load(tmp_path / "model")
    model: Any = load_model(pipeline, **call)
    if case.name:
        with pytest.raises(NullTTAError, match="guidance-distilled"):
            align(model, "a cat", "brightness", config=replace(SETTINGS, guidance="cfg"))
    result = align(model, "a cat", "brightness", config=SETTINGS, seed=3)
    assert bool(result.images.isfinite().all())
    assert float((result.images - result.baseline).abs().max()) > 0
    result.null_text[0].save(tmp_path / "null.safetensors")
    kept = NullText.load(tmp_path / "null.safetensors", pipeline)
    ours = replay(model, kept, seeds=[3])
    torch.testing.assert_close(ours, result.images, rtol=0, atol=1e-4)
    if case.name in STOCHASTIC:
        return
    with kept.apply(pipeline):
        theirs = stock_images(model, "a cat", "", SETTINGS, seed=3)
    torch.testing.assert_close(ours, theirs.reshape_as(ours), rtol=0, atol=1e-4)


def test_a_consistency_models_own_step_draws_all_noise_anew(tmp_path: Path) -> None:
    """Mean and deviation are those of its scheduler, with the same noise."""
    pipeline, _ = next(case for case in CASES if case.name == "LCM-LoRA").load(tmp_path / "model")
    model: Any = load_model(pipeline)
    step = model.schedule(4)[1].with_eta("auto")
    x, prediction, noise = (
        torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1, 2)
    )
    mean, std = model.step_distribution(x, prediction, step)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(4)
    draw = torch.Generator().manual_seed(2)
    scheduler._step_index = 1
    theirs = scheduler.step(prediction, scheduler.timesteps[1], x, generator=draw).prev_sample
    torch.testing.assert_close(mean + std * noise, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(NullTTAError, match="draws more noise than DDPM's") as caught:
        align(model, "a cat", "brightness", config=replace(SETTINGS, eta="auto", conventions="paper"))
    assert caught.value.field == "conventions"


@pytest.mark.parametrize("steps", [1, 4])
def test_the_presets_of_few_steps_take_them(steps: int, checkpoint: Path) -> None:
    config = NullTTAConfig.preset(f"{steps}-step", inner_steps=(1, 1))
    result = align(load_model(checkpoint, device="cpu"), "a cat", "brightness", config=config)
    assert len(result.trace) == steps
    assert (result.problem.schedule()[0].eta, config.guidance) == (0.0, "nag")


def test_a_null_text_learnt_under_attention_guidance_refuses_calls_with_classifier_free_guidance(
    checkpoint: Path,
) -> None:
    model: Any = load_model(checkpoint, device="cpu")
    learnt = align(model, "a cat", "brightness", config=SETTINGS).null_text[0]
    model.pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "output_type": "pt"}
    with pytest.raises(NullTTAError, match="switch it off"), learnt.apply(model.pipeline):
        model.pipeline("a cat", guidance_scale=4.0, **call)
    with (
        pytest.raises(NullTTAError, match="exact is offered for classifier-free"),
        learnt.apply(model.pipeline, exact=True),
    ):
        model.pipeline("a cat", guidance_scale=1.0, **call)
    assert torch.equal(replay(model, learnt, exact=True), replay(model, learnt, exact=True))


def test_a_second_call_stands_for_the_null_branch_of_a_pipeline_without_one(tmp_path: Path) -> None:
    """The same checkpoint with its own null branch, and without it, has the same embeddings and predictions."""
    klein = next(case for case in PIPELINES if case.name == "Flux2KleinPipeline")
    pipeline, call = klein.load(tmp_path)
    own: Any = load_model(pipeline, **call)
    expected, step = own.encode(["a cat"], [""]), own.schedule(3)[1]
    pipeline.register_to_config(is_distilled=True)
    second: Any = load_model(pipeline, **call)
    x = torch.randn((1, *own.latent_shape), generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(second.encode(["a cat"], [""]), expected, strict=True):
        assert ours.keys() == theirs.keys()
        torch.testing.assert_close(second.predict(x, second.schedule(3)[1], ours), own.predict(x, step, theirs))
    assert second.placement(3)["second"]
    assert second.distilled == "is_distilled"


def test_a_consistency_model_with_the_scale_as_an_input_takes_a_negative_prompt(checkpoint: Path) -> None:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    parts = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None).components
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**parts["unet"].config, "time_cond_proj_dim": 8})
    scheduler = LCMScheduler.from_config(parts["scheduler"].config, original_inference_steps=50)
    pipeline = LatentConsistencyModelPipeline(
        **{**parts, "unet": unet, "scheduler": scheduler}, requires_safety_checker=False
    )
    model = load_model(pipeline, guidance_scale=8.0)
    settings = replace(SETTINGS, eta="auto")
    results = [align(model, "a cat", "brightness", config=settings, negative_prompt=text) for text in ("", "ugly")]
    assert not torch.equal(results[0].baseline, results[1].baseline)
    assert bool((results[0].images - results[0].baseline).abs().max() > 0)
