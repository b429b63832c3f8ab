"""What cannot work is said in one line before anything is computed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align, load_model
from nulltta.testing.stock import stock_images

from ..tiny import stable_diffusion
from ..tiny_families import save_flux
from ..tiny_images import hunyuan_image

SHORT = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=1, guidance_scale=3.0)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


@pytest.fixture
def pipeline(checkpoint: Path) -> Any:
    return stable_diffusion(checkpoint)


@contextmanager
def _refused(denoiser: Any, match: str) -> Iterator[None]:
    """Expect a refusal of one line, and not one evaluation of the denoiser's layers."""
    evaluations: list[Any] = []
    handle = next(denoiser.children()).register_forward_pre_hook(lambda *_: evaluations.append(1))
    try:
        with pytest.raises(NullTTAError, match=match) as caught:
            yield
    finally:
        handle.remove()
    assert "\n" not in str(caught.value)
    assert not evaluations


def test_a_missing_text_encoder(pipeline: Any) -> None:
    pipeline.text_encoder = None
    with _refused(pipeline.unet, r"has no text encoder: load it, or give the prompt .* as nulltta.EncodedPrompt"):
        align(pipeline, "a cat", brightness, config=SHORT)


def test_one_of_two_text_encoders_missing(tmp_path: Path) -> None:
    from diffusers import FluxPipeline

    flux = FluxPipeline.from_pretrained(save_flux(tmp_path / "model"))
    flux.text_encoder_2 = None
    model = load_model(flux, height=16, width=16)
    with _refused(flux.transformer, "FluxPipeline's own call failed without text_encoder_2"):
        align(model, "a cat", brightness, config=SHORT)


def test_an_ip_adapter_without_its_picture(pipeline: Any) -> None:
    pipeline.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    with _refused(pipeline.unet, r"the unet has an IP-Adapter: load_model needs its picture"):
        align(pipeline, "a cat", brightness, config=SHORT)
    assert load_model(pipeline, ip_adapter_image_embeds=[torch.zeros(2, 1, 4, 32)])


@pytest.mark.parametrize("kind", ["FirstBlockCacheConfig", "PyramidAttentionBroadcastConfig", "FasterCacheConfig"])
def test_a_cache_of_features(tmp_path: Path, kind: str) -> None:
    import diffusers
    from diffusers import hooks

    flux = diffusers.FluxPipeline.from_pretrained(save_flux(tmp_path / "model"))
    model = load_model(flux, height=16, width=16)
    if kind == "FirstBlockCacheConfig":
        flux.transformer.enable_cache(hooks.FirstBlockCacheConfig(threshold=0.2))
    else:
        options: dict[str, Any] = {"spatial_attention_block_skip_range": 2, "current_timestep_callback": lambda: 1}
        if kind.startswith("Faster"):
            options["tensor_format"] = "BCHW"
        flux.transformer.enable_cache(getattr(hooks, kind)(**options))
    for use in (lambda: load_model(flux), lambda: align(model, "a cat", brightness, config=SHORT)):
        with _refused(flux.transformer, r"reuses what it computed at other steps \(.*disable_cache\(\) first"):
            use()
    flux.transformer.disable_cache()
    assert load_model(flux)


def test_a_guider_whose_rule_may_change_from_step_to_step() -> None:
    import diffusers
    from diffusers.guiders import AdaptiveProjectedMixGuidance, ClassifierFreeGuidance

    image = hunyuan_image(diffusers)
    for guider in (AdaptiveProjectedMixGuidance(), ClassifierFreeGuidance(stop=0.5)):
        image.guider = guider
        with _refused(image.transformer, f"{type(guider).__name__} may guide each step in another way"):
            load_model(image, height=16, width=16)
    image.guider = ClassifierFreeGuidance(3.0)
    model = load_model(image, height=16, width=16)
    config = replace(SHORT, eta=0.0)
    plain = align(model, "a cat", brightness, config=config, method="plain", seed=3).images
    stock = stock_images(model, "a cat", "", config, seed=3)
    torch.testing.assert_close(plain, stock.reshape(plain.shape), rtol=0, atol=1e-4)


def test_inference_mode(pipeline: Any, checkpoint: Path) -> None:
    model = load_model(pipeline)
    with torch.inference_mode():
        for use in (
            lambda: align(model, "a cat", brightness, config=SHORT),
            lambda: load_model(pipeline),
            lambda: load_model(checkpoint),
        ):
            with _refused(pipeline.unet, r"inside torch.inference_mode nothing can be optimised"):
                use()


def test_weights_that_were_loaded_in_inference_mode(checkpoint: Path) -> None:
    from diffusers import StableDiffusionPipeline

    with torch.inference_mode():
        loaded = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    with _refused(loaded.unet, r"was loaded inside torch.inference_mode"):
        align(loaded, "a cat", brightness, config=SHORT)


def test_a_tensor_as_a_prompt(pipeline: Any) -> None:
    embeds = torch.zeros(1, 77, 32)
    for prompts in (embeds, [embeds]):
        with _refused(pipeline.unet, r"a prompt must be text, not a Tensor: give embeddings as nulltta.EncodedPrompt"):
            align(pipeline, prompts, brightness, config=SHORT)  # type: ignore[arg-type]
    with _refused(pipeline.unet, r"a negative prompt must be text, not a Tensor"):
        align(pipeline, "a cat", brightness, config=SHORT, negative_prompt=embeds)  # type: ignore[arg-type]


def test_a_decoder_without_a_gradient(pipeline: Any) -> None:
    pipeline.vae.decode = torch.no_grad()(pipeline.vae.decode)
    model = load_model(pipeline)
    model.schedule(2)  # proven
    with _refused(pipeline.unet, r"gradient must be zeroth-order: images that this model decodes carry no gradient"):
        align(model, "a cat", brightness, config=SHORT)
    searched = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=1, gradient="zeroth-order")
    assert align(model, "a cat", brightness, config=searched).rewards.shape == (1,)
    assert align(model, "a cat", brightness, config=SHORT, method="plain").rewards.shape == (1,)


def test_quantised_weights_that_do_not_change_their_type(pipeline: Any) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise ValueError("Casting a quantized model to a new `dtype` is unsupported.\nMore of it.")

    pipeline.to = refuses
    with _refused(pipeline.unet, r"the pipeline does not move to torch.float16: Casting a quantized model"):
        load_model(pipeline, dtype=torch.float16)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("IFPipeline", r"it has no decoder \(vae\)"),
        ("AmusedPipeline", r"it has no decoder \(vae\)"),
        ("KandinskyV22PriorPipeline", r"it has no denoiser \(unet or transformer or transformer_2\)"),
    ],
)
def test_a_class_without_a_part_that_is_watched(name: str, reason: str, tmp_path: Path) -> None:
    """It is known from the index alone, so that nothing is downloaded or loaded."""
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(NullTTAError, match=f"{name} is not supported: {reason}"):
        load_model(tmp_path)


def test_a_library_that_diffusers_uses_without_importing_it(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import StableDiffusionPipeline

    class Cleaning(StableDiffusionPipeline):  # type: ignore[misc]
        """As Wan's image-to-video pipeline, whose module imports ftfy only if it is there."""

        def encode_prompt(self, prompt: str, *_: Any, **__: Any) -> Any:
            return ftfy.fix_text(prompt)  # type: ignore[name-defined]  # noqa: F821

    monkeypatch.setitem(sys.modules, "ftfy", None)
    own = Cleaning(**pipeline.components, requires_safety_checker=False)
    with _refused(own.unet, match="Cleaning's own call needs the library ftfy: pip install ftfy"):
        load_model(own).encode(["a cat"], [""])


def test_the_embedded_model_is_none_of_these() -> None:
    assert nulltta.load_model("embedded", device="cpu")
