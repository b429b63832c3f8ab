"""Pipelines beside the families of the contract suite: their calls are followed exactly, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import nulltta
from nulltta import NullText, NullTTAConfig, NullTTAError, align
from nulltta.models.nag import with_guidance
from nulltta.null_text.replay import replay
from nulltta.testing.stock import stock_images

from ..derived_diffusions import DIFFUSIONS
from ..derived_pipelines import DERIVED
from ..further_images import NEW_IMAGES
from ..further_videos import NEW_VIDEOS
from ..tiny_images import IMAGES
from ..tiny_pipelines import ACCEPTED, PICTURE, PIPELINES, REFUSED, SMALL, TinyPipeline, comparable
from ..video_pipelines import VIDEOS

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # NumPy's, in diffusers' DPM solver
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),  # Mochi's
]
SETTINGS = NullTTAConfig(num_inference_steps=3, inner_steps=(1, 1), num_particles=1, guidance_scale=4.0, eta=0.0)
MEASURED = {
    "OvisImagePipeline": "a text that is multiplied by its mask",
    "LongCatImagePipeline": "guidance of at most the conditional prediction's length",
    "Krea2Pipeline": "several layers of the text's tokens",
    "HunyuanVideo15Pipeline": "two texts under masks, of which one is empty, and a guider",
    "AnimateDiffControlNetPipeline": "a ControlNet that is given each frame as a row of its own",
    "ZImageControlNetInpaintPipeline": "a call of one prompt that holds its rows in lists",
}
"""Those classes of docs/families.md that show something of their own."""
CASES = (*ACCEPTED, *(case for case in (*IMAGES, *DERIVED, *VIDEOS, *NEW_VIDEOS) if case.name in MEASURED))
UNKNOWN = {
    "LTXConditionPipeline": "the call steers its scheduler's steps",
    "LTX2Pipeline": "a sound, which the denoiser is given back",
    "GlmImagePipeline": "its null branch has no text",
    "QwenImage21Pipeline": "its pictures are transparent",
}
"""Refused classes of docs/families.md, and what is particular to each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny checkpoints are kept."""
    return tmp_path_factory.mktemp("pipelines")


@pytest.mark.parametrize("case", [case for case in CASES if case.guidance == "cfg"], ids=str)
def test_its_call_is_followed_with_and_without_a_learnt_null_text(
    case: TinyPipeline, folder: Path, tmp_path: Path
) -> None:
    """A plain run is the stock call, and so is a run under a null text the stock call under it."""
    pipeline, call = case.load(folder)
    comparable(pipeline)
    model: Any = nulltta.load_model(pipeline, **call)
    result = align(model, "a cat", "brightness", config=SETTINGS, seed=3)
    plain = stock_images(model, "a cat", "", SETTINGS, seed=3)
    torch.testing.assert_close(result.baseline, plain.reshape_as(result.baseline), rtol=0, atol=2e-5)
    assert bool((result.trace[0].kl > 0).all())
    result.null_text[0].save(tmp_path / "null.safetensors")
    kept = NullText.load(tmp_path / "null.safetensors", pipeline)
    ours = replay(model, kept, seeds=[3])
    torch.testing.assert_close(ours, result.images, rtol=0, atol=2e-5)
    with kept.apply(pipeline):
        theirs = stock_images(model, "a cat", "", SETTINGS, seed=3)
    torch.testing.assert_close(ours, theirs.reshape_as(ours), rtol=0, atol=2e-5)


FURTHER_REFUSED = tuple(case for case in (*DERIVED, *IMAGES, *NEW_VIDEOS) if case.name in UNKNOWN)


@pytest.mark.parametrize("case", [*REFUSED, *FURTHER_REFUSED], ids=str)
def test_it_is_refused_with_the_reason(case: TinyPipeline, folder: Path) -> None:
    pipeline, call = case.load(folder)
    with pytest.raises(NullTTAError, match=case.refused):
        nulltta.load_model(pipeline, **call).encode(["a cat"], [""])


def _load(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    return next(case for case in PIPELINES if case.name == name).load(folder)


def test_a_third_branch_is_refused(folder: Path) -> None:
    model = nulltta.load_model(_load("StableDiffusionPAGPipeline", folder)[0])
    with pytest.raises(NullTTAError, match=r"3 branches where two were expected: switch off further guidance \(pag_sc"):
        model.encode(["a cat"], [""])


def test_guidance_that_is_rescaled_is_refused(folder: Path) -> None:
    pipeline, call = _load("StableDiffusionPAGPipeline", folder)
    model = nulltta.load_model(pipeline, **call, guidance_rescale=0.7)
    with pytest.raises(NullTTAError, match="combined in a way that is not known: switch off guidance_rescale"):
        model.encode(["a cat"], [""])


def test_a_masked_picture_that_changes_from_step_to_step_is_refused(folder: Path) -> None:
    """Where the denoiser has no channels for the mask, the pipeline puts the known part back after each step."""
    pipeline, call = _load("FluxInpaintPipeline", folder)
    half = Image.new("L", (32, 32), 255)
    half.paste(0, (0, 0, 16, 32))
    with pytest.raises(NullTTAError, match="changes from step to step, as a masked picture does"):
        nulltta.load_model(pipeline, **{**call, "mask_image": half}).encode(["a cat"], [""])


def test_a_pipeline_without_a_negative_prompt_optimises_the_null_text_that_it_has(folder: Path) -> None:
    pipeline, call = _load("Flux2KleinPipeline", folder)
    model = nulltta.load_model(pipeline, **call)
    with pytest.raises(NullTTAError, match="must be empty: the call of Flux2KleinPipeline takes none") as caught:
        model.encode(["a cat"], ["ugly"])
    assert caught.value.field == "negative_prompt"


def test_a_call_whose_picture_is_for_one_prompt_takes_prompts_one_by_one(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two prompts fail in its denoiser, which a recording whose denoiser computes nothing does not show."""
    caplog.set_level("INFO", "nulltta")
    case = next(case for case in DIFFUSIONS if case.name == "StableUnCLIPImg2ImgPipeline")
    pipeline, call = case.load(folder)
    model: Any = nulltta.load_model(pipeline, **call)
    texts = ["a cat", "two red dogs"]
    (both, _), alone = model.encode(texts, [""] * 2), [model.encode([text], [""])[0] for text in texts]
    assert f"{case} is followed with one prompt at a time: with two, The size of tensor" in caplog.text
    x, step = model.initial_latents(2, torch.Generator().manual_seed(0)), model.schedule(2)[0]
    ours = model.predict(x, step, both)
    for i, each in enumerate(alone):
        torch.testing.assert_close(ours[i : i + 1], model.predict(x[i : i + 1], step, each), rtol=0, atol=1e-6)


def test_texts_of_different_lengths_are_padded_under_the_mask_that_the_call_has(folder: Path) -> None:
    """With next to no guidance inside attention, both halves of its batch are the prompt's own prediction."""
    pipeline, call = next(case for case in NEW_IMAGES if case.name == "DreamLiteMobilePipeline").load(folder)
    model: Any = nulltta.load_model(pipeline, **call)
    guided: Any = with_guidance(model, replace(SETTINGS, guidance="nag", nag_scale=1e-6))
    cond, null = guided.encode(["a cat"], [""])
    x, step = model.initial_latents(1, torch.Generator().manual_seed(0)), model.schedule(2)[0]
    alone = model.predict(x, step, model.encode(["a cat"], [""])[0])
    torch.testing.assert_close(guided.predict(x, step, null), alone, rtol=0, atol=2e-5)
    torch.testing.assert_close(guided.predict(x, step, cond), alone, rtol=0, atol=2e-5)


def test_an_image_to_image_call_starts_at_its_own_noise_level_for_every_number_of_steps(folder: Path) -> None:
    pipeline, _ = _load("StableDiffusionImg2ImgPipeline", folder)
    model: Any = nulltta.load_model(pipeline, image=SMALL, strength=0.5)
    for steps in (2, 5, 7):
        config = NullTTAConfig(num_inference_steps=steps, guidance_scale=4.0, eta=0.0, num_particles=1)
        ours = align(model, "a cat", "brightness", config=config, seed=1, method="plain").images
        torch.testing.assert_close(ours, stock_images(model, "a cat", "", config, seed=1), rtol=0, atol=2e-5)


def test_an_image_to_image_call_in_half_precision_takes_few_steps(folder: Path) -> None:
    """A call for as few steps starts at a noise level that bfloat16 rounds to none, and more are asked for."""
    pipeline, call = _load("StableDiffusionImg2ImgPipeline", folder)
    model: Any = nulltta.load_model(pipeline.to(torch.bfloat16), **call)
    assert len(model.schedule(2)) == 2
    assert model.first_latents(1, torch.Generator().manual_seed(0), 2).std() > 0.1


def test_the_denoiser_is_told_the_time_in_the_dtype_of_the_latents(folder: Path) -> None:
    """HunyuanDiT's embedding of the time takes the dtype of its argument."""
    pipeline, call = _load("HunyuanDiTPipeline", folder)
    model = nulltta.load_model(pipeline.to(torch.bfloat16), **call)
    assert align(model, "a cat", "brightness", config=SETTINGS).images.isfinite().all()


def test_latents_that_are_cast_for_the_scheduler_are_followed(folder: Path) -> None:
    pipeline, call = _load("MochiPipeline", folder)
    model: Any = nulltta.load_model(pipeline.to(torch.bfloat16), **call)
    ours = align(model, "a cat", "brightness", config=SETTINGS, method="plain", seed=3).images
    theirs = stock_images(model, "a cat", "", SETTINGS, seed=3)
    torch.testing.assert_close(ours, theirs.reshape_as(ours), rtol=0, atol=5e-2)


def test_an_image_to_image_run_is_replayed_by_a_model_that_is_loaded_anew(folder: Path) -> None:
    pipeline, call = _load("StableDiffusionImg2ImgPipeline", folder)
    result = align(nulltta.load_model(pipeline, **call), "a cat", "brightness", config=SETTINGS)
    again = nulltta.load_model(_load("StableDiffusionImg2ImgPipeline", folder)[0], **call)
    assert torch.equal(replay(again, result.null_text[0], exact=True), result.images)


def test_a_strength_that_leaves_less_than_one_step_asks_for_more_steps_or_is_refused(folder: Path) -> None:
    pipeline, call = _load("StableDiffusionImg2ImgPipeline", folder)
    config = NullTTAConfig(num_inference_steps=2, guidance_scale=4.0, eta=0.0, num_particles=1)
    model: Any = nulltta.load_model(pipeline, **{**call, "strength": 0.1})
    ours = align(model, "a cat", "brightness", config=config, seed=1, method="plain").images
    torch.testing.assert_close(ours, stock_images(model, "a cat", "", config, seed=1), rtol=0, atol=2e-5)
    for strength, message in {0.001: "must be 0.002 or more for 2 steps", 0: "must be 0.002 or more"}.items():
        with pytest.raises(NullTTAError, match=message) as caught:
            nulltta.load_model(pipeline, **{**call, "strength": strength}).encode(["a cat"], [""])
        assert caught.value.field == "strength"
    with pytest.raises(NullTTAError, match=r"must be 0\.05 or more for 50 steps: the model was trained on 1000"):
        nulltta.load_model(pipeline, **{**call, "strength": 0.01}).schedule(50)


def test_activations_that_are_recomputed_keep_the_mask_of_the_text(folder: Path) -> None:
    """diffusers' own checkpointing of this denoiser leaves the mask out of half of its blocks."""
    pipeline, call = _load("ChromaPipeline", folder)
    model: Any = nulltta.load_model(pipeline, **call)
    _, null = model.encode(["a cat"], [""])
    x, step = model.initial_latents(1, torch.Generator().manual_seed(0)), model.schedule(2)[0]
    tokens = null["encoder_hidden_states"].requires_grad_()
    expected = model.predict(x, step, null)
    model.enable_checkpointing()
    found = model.predict(x, step, null)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(each.sum(), tokens)[0] for each in (found, expected)))


def test_what_the_pipeline_itself_refuses_is_one_line(checkpoint: Path) -> None:
    model = nulltta.load_model(checkpoint, height=17, width=16)
    with pytest.raises(NullTTAError, match="StableDiffusionPipeline's own call failed: `height` and `width`") as caught:
        model.encode(["a cat"], [""])
    assert "\n" not in str(caught.value)
    assert torch.is_grad_enabled()


def test_a_call_that_takes_one_prompt_draws_a_batch_one_by_one(folder: Path) -> None:
    """CogVideoX's image-to-video call needs as many pictures as prompts, and is given one."""
    pipeline, call = next(case for case in VIDEOS if case.name == "CogVideoXImageToVideoPipeline").load(folder)
    model: Any = nulltta.load_model(pipeline, **call)
    prompts, config = ["a cat", "two red dogs"], replace(SETTINGS, num_inference_steps=2)
    ours = align(model, prompts, "brightness", config=config, seed=3, method="plain").images
    assert model.found.singly
    for i, prompt in enumerate(prompts):
        theirs = stock_images(model, prompt, "", config, seed=3)
        torch.testing.assert_close(ours[i : i + 1], theirs.reshape_as(ours[i : i + 1]), rtol=0, atol=2e-5)


def test_a_picture_of_another_size_than_the_call_is_the_pipelines_own_business(folder: Path) -> None:
    pipeline, _ = _load("StableDiffusionImg2ImgPipeline", folder)
    model = nulltta.load_model(pipeline, image=PICTURE, strength=1.0)
    assert align(model, "a cat", "brightness", config=SETTINGS).images.shape[-2:] == (32, 32)
