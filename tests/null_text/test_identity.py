"""Which models a null text fits: the same weights in whatever form, and no others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullText, NullTTAConfig, NullTTAError, align
from nulltta.null_text.identity import differences, identity
from nulltta.testing import Gaussian

from ..tiny import stable_diffusion

SHORT = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=1, guidance_scale=3.0)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


def _fits(one: Any, two: Any) -> bool:
    first, second = (json.loads(json.dumps(identity(each))) for each in (one, two))
    return not differences(first, second) and not differences(second, first)


def _add_lora(pipeline: Any, scale: float, seed: int = 0) -> Any:
    """Give the text encoder a LoRA in the way that loading one does."""
    pytest.importorskip("peft")
    from peft import LoraConfig

    torch.manual_seed(seed)
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    pipeline.text_encoder.add_adapter(config, "style")
    pipeline.set_adapters("style", scale)
    return pipeline


def test_every_precision_of_a_checkpoint_fits_every_other(checkpoint: Path) -> None:
    half, brain, full = (
        stable_diffusion(checkpoint, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32)
    )
    twice = stable_diffusion(checkpoint, dtype=torch.float16).to(dtype=torch.bfloat16)  # rounded twice
    found = [json.loads(json.dumps(identity(each))) for each in (half, brain, full, twice)]
    assert not any(differences(one, two) for one in found for two in found)


def test_a_text_encoder_with_other_weights_does_not(checkpoint: Path) -> None:
    other = stable_diffusion(checkpoint)
    layer = other.text_encoder.get_submodule("encoder.layers.1.self_attn.q_proj")
    layer.weight.data += 0.1 * layer.weight.std() * torch.randn(layer.weight.shape)
    found = differences(identity(stable_diffusion(checkpoint)), identity(other))
    assert found == ["the text encoder differs (text_encoder)"]


def test_a_key_that_a_later_diffusers_adds_at_its_default_is_no_difference(checkpoint: Path) -> None:
    older = stable_diffusion(checkpoint)
    older.unet._internal_dict = {key: v for key, v in older.unet.config.items() if key != "resnet_out_scale_factor"}
    assert _fits(older, stable_diffusion(checkpoint))


def test_a_quantised_denoiser_is_no_difference(checkpoint: Path) -> None:
    quantised = stable_diffusion(checkpoint)
    quantised.unet.register_to_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert _fits(quantised, stable_diffusion(checkpoint))


def test_a_layer_that_was_quantised_is_unknown_and_the_others_still_count(checkpoint: Path) -> None:
    quantised, other = stable_diffusion(checkpoint), stable_diffusion(checkpoint)
    for pipeline in (quantised, other):
        layer = pipeline.text_encoder.get_submodule("encoder.layers.0.self_attn.q_proj")
        packed = (layer.weight.detach() * 100).to(torch.int8)
        layer.weight = torch.nn.Parameter(packed, requires_grad=False)
    assert _fits(quantised, stable_diffusion(checkpoint))
    other.text_encoder.get_submodule("encoder.layers.0.self_attn.v_proj").weight.data *= 1.1
    assert not _fits(other, stable_diffusion(checkpoint))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_and_freed_text_encoders_are_no_difference(checkpoint: Path) -> None:
    compiled, freed, meta = (stable_diffusion(checkpoint) for _ in range(3))
    compiled.text_encoder = torch.compile(compiled.text_encoder)
    compiled.unet = torch.compile(compiled.unet)
    freed.text_encoder = None
    meta.text_encoder.to("meta")  # as offloading leaves it
    plain = stable_diffusion(checkpoint)
    assert all(_fits(pipeline, plain) for pipeline in (compiled, freed, meta))


def test_a_loaded_textual_inversion_is_no_difference(checkpoint: Path) -> None:
    inverted = stable_diffusion(checkpoint)
    inverted.load_textual_inversion({"<style>": torch.randn(3, 32)})
    assert inverted.text_encoder.get_input_embeddings().weight.shape[0] > len(stable_diffusion(checkpoint).tokenizer)
    assert _fits(inverted, stable_diffusion(checkpoint))


def test_a_subclass_of_a_pipeline_is_its_pipeline(checkpoint: Path) -> None:
    from diffusers import StableDiffusionPipeline

    class OurPipeline(StableDiffusionPipeline):  # type: ignore[misc, no-untyped-call]
        """Somebody's own."""

    plain = stable_diffusion(checkpoint)
    assert _fits(OurPipeline(**plain.components, requires_safety_checker=False), plain)


def test_a_text_encoder_lora_fits_at_its_own_scale_only(checkpoint: Path) -> None:
    full, same, half, other = (
        _add_lora(stable_diffusion(checkpoint), scale, seed) for scale, seed in ((1.0, 0), (1.0, 0), (0.5, 0), (1.0, 1))
    )
    plain = stable_diffusion(checkpoint)
    assert _fits(full, same)
    for different in (half, other, plain):
        assert differences(identity(full), identity(different)) == [
            "the text encoder's LoRA or its scale differs (text_encoder)"
        ]
    same.disable_lora()
    assert _fits(same, plain)


def test_the_scale_that_a_call_gives_a_lora_counts(checkpoint: Path) -> None:
    pipeline = _add_lora(stable_diffusion(checkpoint), 1.0)
    model = nulltta.load_model(pipeline, cross_attention_kwargs={"scale": 0.5})
    assert differences(identity(model), identity(nulltta.load_model(pipeline)))
    assert not differences(identity(model), identity(pipeline))  # whose calls are not known yet


def test_what_a_denoiser_lora_is_is_recorded_and_fits(checkpoint: Path) -> None:
    pytest.importorskip("peft")
    from peft import LoraConfig

    adapted = stable_diffusion(checkpoint)
    adapted.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "style")
    recorded = {}
    for scale in (0.5, 1.0):
        adapted.set_adapters("style", scale)
        recorded[scale] = identity(adapted)
    assert recorded[0.5]["denoiser"]["lora"] != recorded[1.0]["denoiser"]["lora"]
    assert not differences(recorded[0.5], recorded[1.0])
    assert _fits(adapted, stable_diffusion(checkpoint))


def test_it_is_that_of_the_model_before_sampling(checkpoint: Path) -> None:
    """A text encoder that is changed or freed while a run samples changes nothing of what was learnt."""
    pipeline, plain = stable_diffusion(checkpoint), identity(stable_diffusion(checkpoint))

    def frees(_: Any) -> None:
        pipeline.text_encoder = None

    learnt = align(pipeline, "a cat", brightness, config=SHORT, on_step=frees).null_text[0]
    assert learnt.about["model"]["text_encoders"] == plain["text_encoders"]


def test_what_cannot_be_read_does_not_end_a_run(checkpoint: Path) -> None:
    class Unreadable(torch.nn.Module):
        def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no such thing")

    pipeline = stable_diffusion(checkpoint)
    pipeline.text_encoder = Unreadable()
    assert _fits(pipeline, stable_diffusion(checkpoint))


def test_a_file_whose_identity_makes_no_sense_is_unknown_or_refused(checkpoint: Path) -> None:
    here = stable_diffusion(checkpoint)
    name = {"pipeline": "StableDiffusionPipeline"}
    for nonsense in (
        {"denoiser": "6f2c", "text_encoder": "a91b"},  # the first version's hashes
        {"denoiser": 3, "text_encoders": []},
        {"text_encoders": {"text_encoder": {"weights": {"q_proj.weight": ["x"] * 16, "fc1.bias": 3}}}},
        {"text_encoders": {"text_encoder": 1}, "lora_scale": []},
    ):
        NullText([1.0], [{}], "a cat", about={"model": name | nonsense}).require_fit(here)
    with pytest.raises(NullTTAError, match="made for an unknown model"):
        NullText([1.0], [{}], "a cat", about={"model": {}}).require_fit(here)
    assert identity(Gaussian()) == {"pipeline": "Gaussian"}
