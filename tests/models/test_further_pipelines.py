"""Pipelines beside the text-to-image ones of the contract suite, made of the same tiny parts."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align

from ..tiny_families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' DPM solver
PICTURE = Image.new("RGB", (32, 32), (200, 30, 60))
MASKED = {"image": PICTURE, "mask_image": Image.new("L", (32, 32), 255)}
ACCEPTED: list[tuple[str, str, dict[str, Any]]] = [
    ("sd", "StableDiffusionInpaintPipeline", {**MASKED, "height": 32, "width": 32}),
    ("sd", "StableDiffusionPAGPipeline", {"pag_scale": 0.0}),
    ("sdxl", "StableDiffusionXLPAGPipeline", {"pag_scale": 0.0}),
    ("kolors", "KolorsPAGPipeline", {"pag_scale": 0.0}),
    ("sd3", "StableDiffusion3PAGPipeline", {"pag_scale": 0.0}),
    ("flux", "FluxInpaintPipeline", {**MASKED, "strength": 1.0}),
    ("qwen", "QwenImageInpaintPipeline", {**MASKED, "strength": 1.0}),
    ("pixart", "PixArtAlphaPipeline", {}),
    ("pixart", "PixArtSigmaPAGPipeline", {"pag_scale": 0.0}),
    ("sana", "SanaPAGPipeline", {"pag_scale": 0.0}),
]


def _pipeline(family: str, name: str, folder: Path) -> Any:
    """A pipeline of another class, of one family's parts."""
    kind = getattr(diffusers, name)
    parts = nulltta.load_model(FAMILIES[family].save(folder), device="cpu").pipeline.components
    wanted = [each for each in inspect.signature(kind.__init__).parameters if each != "self"]
    given = {each: parts[each] for each in wanted if each in parts}
    given |= {each: None for each in ("safety_checker", "feature_extractor", "image_encoder") if each in wanted}
    return kind(**given, **({"requires_safety_checker": False} if "requires_safety_checker" in wanted else {}))


@pytest.mark.parametrize(("family", "name", "call"), ACCEPTED, ids=[name for _, name, _ in ACCEPTED])
def test_it_is_found_and_aligned(family: str, name: str, call: dict[str, Any], tmp_path: Path) -> None:
    pipeline = _pipeline(family, name, tmp_path / "model")
    accepted = inspect.signature(type(pipeline).__call__).parameters
    call = {key: value for key, value in FAMILIES[family].call.items() if key in accepted} | call
    model = nulltta.load_model(pipeline, **call)
    config = NullTTAConfig(num_inference_steps=3, inner_steps=(2, 2), num_particles=1, guidance_scale=4.0)
    result = align(model, "a cat", "brightness", config=config)
    assert bool((result.trace[0].kl > 0).all())
    assert bool(result.images.isfinite().all())


def test_a_third_branch_is_refused(tmp_path: Path) -> None:
    model = nulltta.load_model(_pipeline("sd", "StableDiffusionPAGPipeline", tmp_path / "model"))
    with pytest.raises(NullTTAError, match=r"3 branches where two were expected: switch off further guidance \(pag_sc"):
        model.encode(["a cat"], [""])


def test_a_masked_picture_that_changes_from_step_to_step_is_refused(tmp_path: Path) -> None:
    half = Image.new("L", (32, 32), 255)
    half.paste(0, (0, 0, 16, 32))
    pipeline = _pipeline("sd", "StableDiffusionInpaintPipeline", tmp_path / "model")
    model = nulltta.load_model(pipeline, image=PICTURE, mask_image=half, height=32, width=32)
    with pytest.raises(NullTTAError, match="the latents reach the decoder in a way that is not known: some"):
        model.encode(["a cat"], [""])


def test_an_image_to_image_call_that_starts_elsewhere_is_refused(tmp_path: Path) -> None:
    pipeline = _pipeline("sd", "StableDiffusionImg2ImgPipeline", tmp_path / "model")
    model = nulltta.load_model(pipeline, image=PICTURE, strength=0.5)
    with pytest.raises(NullTTAError, match="starts at another noise level"):
        model.schedule(7)


def test_what_the_pipeline_itself_refuses_is_one_line(checkpoint: Path) -> None:
    model = nulltta.load_model(checkpoint, height=17, width=16)
    with pytest.raises(NullTTAError, match="StableDiffusionPipeline's own call failed: `height` and `width`") as caught:
        model.encode(["a cat"], [""])
    assert "\n" not in str(caught.value)
    assert torch.is_grad_enabled()
