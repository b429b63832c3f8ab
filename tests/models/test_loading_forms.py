"""The forms in which people have a model: one file, half precision only, quantised, compiled, adapted, a subclass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align, load_model

from ..single_file import save_single_file
from ..tiny import stable_diffusion
from ..tiny_families import save_flux

SHORT = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=2, guidance_scale=3.0)
PLAIN = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=1, guidance_scale=3.0, eta=0.0)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


def _aligned(source: Any, prompt: str = "a cat", config: NullTTAConfig = SHORT, **options: Any) -> nulltta.Result:
    return align(load_model(source, **options), prompt, brightness, config=config)


def _require_same(source: Any, checkpoint: Path, **options: Any) -> None:
    """The aligned image is the plain directory's, which takes a gradient through whatever form the weights are in."""
    torch.testing.assert_close(
        _aligned(source, **options).images, _aligned(checkpoint).images, rtol=0, atol=1e-5
    )  # fmt: skip


def _stock_under(learnt: nulltta.NullText, pipeline: Any) -> Tensor:
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt"}
    call["generator"] = torch.Generator().manual_seed(0)
    with learnt.apply(pipeline):
        images: Tensor = pipeline("a cat", **call).images
    return images


def test_a_single_file_is_the_directory_that_it_was_made_of(checkpoint: Path, tmp_path: Path) -> None:
    file = save_single_file(stable_diffusion(checkpoint), tmp_path / "model.safetensors")
    _require_same(file, checkpoint, base_model=checkpoint)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the hub client's own
def test_a_single_file_whose_configuration_is_not_here_says_what_to_give(checkpoint: Path, tmp_path: Path) -> None:
    file = save_single_file(stable_diffusion(checkpoint), tmp_path / "model.safetensors")
    with pytest.raises(NullTTAError, match=r"v1-5, cannot be fetched: give the diffusers .* \(base_model\)") as caught:
        load_model(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(NullTTAError, match=r"base_model belongs to a single file"):
        load_model(checkpoint, base_model=checkpoint)
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(NullTTAError, match=r"broken.safetensors' does not load"):
        load_model(tmp_path / "broken.safetensors", base_model=checkpoint)
    (tmp_path / "old.ckpt").write_bytes(b"x")
    with pytest.raises(NullTTAError, match="may hold code: convert it"):
        load_model(tmp_path / "old.ckpt", base_model=checkpoint)


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_directory_of_half_precision_files_only_loads(checkpoint: Path, tmp_path: Path, variant: str) -> None:
    stable_diffusion(checkpoint).save_pretrained(tmp_path / "half", variant=variant)
    assert not list((tmp_path / "half" / "unet").glob("diffusion_pytorch_model.safetensors"))
    _require_same(tmp_path / "half", checkpoint)


def test_a_directory_that_mixes_both_loads(checkpoint: Path, tmp_path: Path) -> None:
    pipeline = stable_diffusion(checkpoint)
    pipeline.save_pretrained(tmp_path / "mixed")
    for file in (tmp_path / "mixed" / "text_encoder").glob("*.safetensors"):
        file.unlink()
    pipeline.text_encoder.save_pretrained(tmp_path / "mixed" / "text_encoder", variant="fp16")
    _require_same(tmp_path / "mixed", checkpoint)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_denoiser_is_its_denoiser(checkpoint: Path, in_place: bool) -> None:
    pipeline = stable_diffusion(checkpoint)
    pipeline.unet = _one_block(pipeline.unet)
    expected = _aligned(pipeline, config=PLAIN)
    learnt = expected.null_text[0]
    stock = _stock_under(learnt, pipeline)
    if in_place:
        pipeline.unet.compile(backend="eager")
    else:
        pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    before = pipeline.unet, pipeline.unet._compiled_call_impl
    torch.testing.assert_close(_aligned(pipeline, config=PLAIN).images, expected.images, rtol=0, atol=1e-5)
    torch.testing.assert_close(_stock_under(learnt, pipeline), stock, rtol=0, atol=1e-5)
    assert (pipeline.unet, pipeline.unet._compiled_call_impl) == before


def _one_block(unet: Any) -> Any:
    """Return a UNet of one block in each direction, which is compiled in less time."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    small = type(unet).from_config({**unet.config, **blocks, "block_out_channels": (4,)}).eval()
    for name, parameter in small.named_parameters():
        if "attn2.to_v" in name or "attn2.to_out" in name:  # so that random weights depend on the text
            parameter.data.mul_(10)
    return small


def test_a_subclass_that_passes_everything_on_is_its_base(checkpoint: Path) -> None:
    from diffusers import StableDiffusionPipeline

    class Ours(StableDiffusionPipeline):  # type: ignore[misc, no-untyped-call]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    pipeline = Ours(**stable_diffusion(checkpoint).components, requires_safety_checker=False)
    _require_same(pipeline, checkpoint)
    assert load_model(pipeline, height=16, clip_skip=1)
    with pytest.raises(NullTTAError, match="colour is not an argument of Ours's call"):
        load_model(pipeline, colour="red")


def test_what_an_auto_pipeline_finds_is_a_pipeline(checkpoint: Path) -> None:
    from diffusers import AutoPipelineForText2Image

    _require_same(AutoPipelineForText2Image.from_pretrained(checkpoint, safety_checker=None), checkpoint)


def test_a_lora_changes_the_pictures_and_keeps_the_gradient(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    trained = stable_diffusion(checkpoint)
    torch.manual_seed(0)
    trained.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    trained.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(trained.unet))
    pipeline = stable_diffusion(checkpoint)
    pipeline.load_lora_weights(tmp_path)
    learning = {name for name, weight in pipeline.unet.named_parameters() if weight.requires_grad}
    result = _aligned(pipeline)
    assert float((result.images - _aligned(checkpoint).images).abs().max()) > 1e-3
    moved = result.null_text[0].values[0]["encoder_hidden_states"] - result.problem.null["encoder_hidden_states"][0]
    assert float(moved.abs().max()) > 0
    assert {name for name, weight in pipeline.unet.named_parameters() if weight.requires_grad} == learning
    pipeline.set_adapters(pipeline.get_active_adapters(), 0.0)
    _require_same(pipeline, checkpoint)


def test_a_textual_inversion_of_several_vectors_reads_as_in_the_stock_call(checkpoint: Path) -> None:
    pipeline = stable_diffusion(checkpoint)
    pipeline.load_textual_inversion({"<style>": torch.randn(3, 32, generator=torch.Generator().manual_seed(0))})
    expected, _ = pipeline.encode_prompt("a cat in <style>", "cpu", 1, False)
    cond, _ = load_model(pipeline).encode(["a cat in <style>"], [""])
    assert torch.equal(cond["encoder_hidden_states"], expected)


def test_what_is_cut_off_counts_every_vector_of_a_textual_inversion(checkpoint: Path) -> None:
    pipeline = stable_diffusion(checkpoint)
    pipeline.load_textual_inversion({"<style>": torch.randn(40, 32, generator=torch.Generator().manual_seed(0))})
    with pytest.warns(UserWarning, match="longer than 77 tokens; cut off"):
        load_model(pipeline).encode(["<style> and <style> seen from above"], [""])


# torchao is not among the development packages: wherever it is installed, every import of diffusers takes longer.
@pytest.mark.parametrize("library", ["torchao", "optimum.quanto"])
def test_a_quantised_denoiser_is_aligned_with_a_gradient_and_stays_quantised(checkpoint: Path, library: str) -> None:
    pytest.importorskip(library)
    pipeline = stable_diffusion(checkpoint)
    if library == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(pipeline.unet, Int8WeightOnlyConfig())
    else:
        from optimum.quanto import freeze, qint8, quantize

        quantize(pipeline.unet, weights=qint8)
        freeze(pipeline.unet)
    weight = pipeline.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight
    result = _aligned(pipeline)
    moved = result.null_text[0].values[0]["encoder_hidden_states"] - result.problem.null["encoder_hidden_states"][0]
    assert moved.dtype == torch.float32
    assert 0 < float(moved.abs().max()) < 1
    stock = pipeline(
        "a cat", negative_prompt="", num_inference_steps=2, guidance_scale=3.0, output_type="pt",
        latents=result.problem.latents[:, 0], eta=0.0,
    ).images  # fmt: skip
    plain = align(
        load_model(pipeline), "a cat", brightness, config=PLAIN, method="plain", latents=result.problem.latents
    )
    torch.testing.assert_close(plain.images, stock, rtol=0, atol=1e-4)
    assert pipeline.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight is weight


def _save_gguf(transformer: Any, path: Path) -> None:
    """Write the weights in 8 bits, and in float32 where a row does not divide into GGUF's blocks of 32."""
    import gguf

    writer = gguf.GGUFWriter(path, "flux")
    for name, value in transformer.state_dict().items():
        array = value.numpy()
        if value.dim() == 2 and value.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_transformer_of_a_gguf_file_is_aligned_with_a_gradient_and_stays_quantised(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from diffusers import FluxPipeline, FluxTransformer2DModel, GGUFQuantizationConfig

    folder, file = save_flux(tmp_path / "model"), tmp_path / "flux.gguf"
    full = FluxPipeline.from_pretrained(folder)
    _save_gguf(full.transformer, file)
    transformer = FluxTransformer2DModel.from_single_file(
        file, config=str(folder), subfolder="transformer", dtype=torch.float32,
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
    )  # fmt: skip
    call = {"height": 16, "width": 16}
    model = load_model(FluxPipeline.from_pretrained(folder, transformer=transformer), **call)
    result = align(model, "a cat", brightness, config=SHORT)
    assert float(result.trace[0].kl) > 0
    stored = [part.weight.dtype for part in transformer.modules() if isinstance(part, torch.nn.Linear)]
    assert torch.uint8 in stored
    near = align(load_model(full, **call), "a cat", brightness, config=SHORT)
    torch.testing.assert_close(result.images, near.images, rtol=0, atol=0.02)
