"""Run the nodes in a real ComfyUI, with a tiny Stable Diffusion of random weights: `python check.py PATH_OF_COMFYUI`.

ComfyUI loads the package as it loads every custom node, reads null texts from its own folder, and samples on the CPU by
its own sampler, all in inference mode, as it runs a workflow.

- A null text that is the same at all steps gives what the same embedding gives as the negative prompt; one that differs
  arrives at each step as it was learnt for the nearest timestep; and the caller's MODEL stays as it was.
- Where Align is registered, its model samples plainly what ComfyUI's sampler does from the same noise, and its gradient
  is that of finite differences. The node shows its progress, raises the reward, and gives a null text that Apply takes.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import nulltta
from nulltta import DoesNotFit, InvalidValue, NullText, NullTTAConfig

STEPS, TOKENS, WIDTH, SIZE = 4, 77, 32, 64
UNET: dict[str, Any] = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1, "context_dim": WIDTH, "use_spatial_transformer": True, "legacy": False,
    "use_temporal_attention": False, "dtype": torch.float32,
}  # fmt: skip


def main(comfyui: str) -> None:
    """Check the nodes in the ComfyUI of a folder."""
    sys.path.insert(0, comfyui)
    del sys.argv[1:]
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import folder_paths
    import nodes

    with tempfile.TemporaryDirectory() as models, torch.inference_mode():
        folder_paths.models_dir = models
        loading = nodes.load_custom_node(str(Path(__file__).parent))
        if inspect.isawaitable(loading):
            asyncio.run(loading)
        check_null_texts(nodes, Path(models))
        if "NullTTAAlign" in nodes.NODE_CLASS_MAPPINGS:
            check_align(nodes, _clip())
    print("the same")


def run(nodes: Any, name: str, **inputs: Any) -> Any:
    """Run a node in the schema in which ComfyUI has registered it, and return its outputs."""
    node = nodes.NODE_CLASS_MAPPINGS[f"NullTTA{name}"]
    if hasattr(node, "define_schema"):
        node.VALIDATE_CLASS()
        return node.execute(**inputs).result
    return getattr(node(), node.FUNCTION)(**inputs)


def check_null_texts(nodes: Any, models: Path) -> None:
    """Check Load Null Text and Apply Null Text."""
    model, learnt = _model(), _null_text()
    learnt.save(models / "null_texts" / "steps.safetensors")
    inputs = nodes.NODE_CLASS_MAPPINGS["NullTTALoadNullText"].INPUT_TYPES()["required"]
    assert "steps.safetensors" in str(inputs["file"])
    (read,) = run(nodes, "LoadNullText", file="steps.safetensors")
    torch.testing.assert_close(read.values[0], learnt.values[0], rtol=0, atol=2e-3)  # differences are float16

    positive, negative = (_random(1, TOKENS, WIDTH, seed=seed) for seed in (1, 2))
    plain = _sampled(model, positive, negative)
    same = NullText([999.0], [{"encoder_hidden_states": negative[0]}], "", learnt.null)
    other = torch.zeros_like(negative)
    (patched,) = run(nodes, "ApplyNullText", model=model, null_text=same)
    torch.testing.assert_close(_sampled(patched, positive, other), plain, rtol=0, atol=1e-5)
    assert not torch.allclose(_sampled(model, positive, other), plain, atol=1e-3)

    seen: list[tuple[float, Tensor]] = []

    def watch(apply_model: Any, call: dict[str, Any]) -> Tensor:
        time = float(model.model.model_sampling.timestep(call["timestep"][:1]))
        seen.append((time, call["c"]["c_crossattn"][call["cond_or_uncond"].index(1)]))
        return apply_model(call["input"], call["timestep"], **call["c"])

    watched = model.clone()
    watched.set_model_unet_function_wrapper(watch)
    _sampled(run(nodes, "ApplyNullText", model=watched, null_text=learnt)[0], positive, other)
    assert len(seen) == STEPS
    for time, text in seen:
        assert torch.equal(text, learnt.at(time)["encoder_hidden_states"])
    assert len({float(text.sum()) for _, text in seen}) == STEPS
    assert "model_function_wrapper" not in model.model_options


def check_align(nodes: Any, clip: Any) -> None:
    """Check Align Null Text and its model."""
    import comfy.utils

    model, vae = _model(), _vae()
    _check_model(_sdxl(), _Tables(), vae)
    expected = _check_model(model, clip, vae)
    positive, negative = (clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)[0] for text in ("a cat", ""))
    shown: list[tuple[int, int, Any]] = []

    def show(value: int, total: int, preview: Any, **_: Any) -> None:
        shown.append((value, total, preview))

    comfy.utils.set_progress_bar_global_hook(show)
    inputs = {
        "model": model, "clip": clip, "vae": vae, "prompt": "a cat", "negative_prompt": "", "reward": "colourfulness",
        "width": SIZE, "height": SIZE, "seed": 0, "steps": STEPS, "cfg": 5.0, "scheduler": "normal",
        "fewest_inner_steps": 3, "most_inner_steps": 3, "candidates": 1, "learning_rate": 0.05, "kl_weight": 0.0,
    }  # fmt: skip
    image, latent, null_text = run(nodes, "Align", **inputs)
    unmoved = run(nodes, "Align", **{**inputs, "fewest_inner_steps": 0, "most_inner_steps": 0})[0]
    reward = nulltta.rewards.load("colourfulness")
    scores = [float(reward(each.movedim(-1, 1), ["a cat"])) for each in (unmoved, image)]
    assert scores[1] > scores[0], scores
    assert image.shape == (1, SIZE, SIZE, 3)
    torch.testing.assert_close(vae.decode(latent["samples"]), image, rtol=0, atol=1e-4)
    assert [value for value, *_ in shown[:STEPS]] == list(range(1, STEPS + 1))
    assert shown[0][2][1].size == (SIZE, SIZE)
    (patched,) = run(nodes, "ApplyNullText", model=model, null_text=null_text)
    assert not torch.allclose(_sampled(patched, positive, negative), expected, atol=1e-4)
    torch.testing.assert_close(_sampled(model, positive, negative), expected, rtol=0, atol=1e-5)
    for changes in ({"model": patched}, {"reward": "os:getcwd"}):
        with suppress(DoesNotFit, InvalidValue):
            run(nodes, "Align", **{**inputs, **changes})
            raise AssertionError(f"{changes} was not refused")


def _check_model(model: Any, clip: Any, vae: Any) -> Tensor:
    """Check the model of Align Null Text, and return ComfyUI's own plain latents."""
    (positive, pooled), (negative, other) = (
        clip.encode_from_tokens(clip.tokenize(text), return_pooled=True) for text in ("a cat", "")
    )
    expected = _sampled(model, positive, negative, pooled, other)
    with torch.inference_mode(False):
        guided = sys.modules[f"{_package()}.align"].ComfyModel(model, clip, vae, (SIZE, SIZE))
        config = NullTTAConfig(num_inference_steps=STEPS, guidance_scale=5.0, num_particles=1, eta=0.0)
        noise = _random(1, 4, SIZE // 8, SIZE // 8, seed=0)
        plain = nulltta.align(guided, "a cat", "colourfulness", config=config, method="plain", latents=noise)
        torch.testing.assert_close(guided.denoiser.process_latent_out(plain.latents), expected, rtol=1e-3, atol=1e-3)
        _check_gradient(guided)
    return expected


def _check_gradient(guided: Any) -> None:
    """Compare the gradient of a weighted sum of a picture's pixels with a finite difference."""
    cond, null = guided.encode(["a cat"], [""])
    step, x = guided.schedule(STEPS)[1], _random(1, *guided.latent_shape, seed=0)
    along = {name: _random(*tensor.shape, seed=3) for name, tensor in null.items()}

    weights = _random(1, 3, SIZE, SIZE, seed=4)

    def weighted(shift: Any) -> Tensor:
        moved = {name: tensor + shift * along[name] for name, tensor in null.items()}
        eps = guided.guide(guided.predict(x, step, moved), guided.predict(x, step, cond), 3.0)
        return (weights * guided.decode(guided.predict_x0(x, eps, step))).sum()

    shift = torch.zeros((), requires_grad=True)
    (slope,) = torch.autograd.grad(weighted(shift), shift)
    with torch.no_grad():  # of several distances, because rounding spoils the short ones and curvature the long ones
        differences = [float(weighted(h) - weighted(-h)) / (2 * h) for h in (1e-3, 3e-3, 0.01, 0.03)]
    errors = [abs(float(slope) / difference - 1) for difference in differences]
    assert min(errors) < 0.05, (float(slope), differences)


def _package() -> str:
    """Return the name under which ComfyUI has imported the package."""
    ours = str(Path(__file__).parent / "__init__.py")
    return next(name for name, module in sys.modules.items() if getattr(module, "__file__", None) == ours)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _null_text() -> NullText:
    """Return a null text that differs between the steps."""
    null = {"encoder_hidden_states": torch.zeros(TOKENS, WIDTH)}
    values = [{"encoder_hidden_states": _random(TOKENS, WIDTH, seed=10 + i)} for i in range(STEPS)]
    return NullText([999.0, 666.0, 333.0, 0.0], values, "a cat", null)


def _model() -> Any:
    """Return a MODEL: ComfyUI's own U-Net of Stable Diffusion 1, small, with random weights."""
    from comfy.supported_models import SD15

    return _patcher(SD15({**UNET, "adm_in_channels": None, "use_linear_in_transformer": False}))


def _sdxl() -> Any:
    """Return a MODEL: ComfyUI's own U-Net of SDXL, small, with random weights."""
    from comfy.supported_models import SDXL

    more = {"adm_in_channels": 2816, "num_classes": "sequential", "model_channels": 64}
    return _patcher(SDXL({**UNET, **more, "use_linear_in_transformer": True}))


def _patcher(config: Any) -> Any:
    from comfy.model_patcher import ModelPatcher

    model = config.get_model({}, device="cpu")
    _fill(model.diffusion_model, 0.2)
    device = torch.device("cpu")
    return ModelPatcher(model.eval(), load_device=device, offload_device=device)


def _clip() -> Any:
    """Return a CLIP: ComfyUI's own text encoder of Stable Diffusion 1, small, with random weights."""
    from comfy import sd, sd1_clip

    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2}
    sizes["projection_dim"] = WIDTH
    target = SimpleNamespace(params={}, clip=sd1_clip.SD1ClipModel, tokenizer=sd1_clip.SD1Tokenizer)
    clip = sd.CLIP(target, embedding_directory=None, model_options={"clip_l_model_config": sizes})
    _fill(clip.cond_stage_model, 0.2)
    return clip


class _Tables:
    """A CLIP of SDXL's shapes: what it encodes a text as is drawn at random."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, tokens: str, return_pooled: bool) -> tuple[Tensor, Tensor]:
        assert return_pooled
        return _random(1, TOKENS, WIDTH, seed=len(tokens)), _random(1, 1280, seed=50 + len(tokens))


def _vae() -> Any:
    """Return a VAE: ComfyUI's own, small, with random weights."""
    from comfy.sd import VAE

    sizes = {"double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
             "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip
    vae = VAE(sd={}, config={"params": {"ddconfig": sizes, "embed_dim": 4}}, device=torch.device("cpu"))
    _fill(vae.first_stage_model, 0.2)
    return vae


def _fill(network: nn.Module, deviation: float) -> None:
    source = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = deviation * torch.randn(parameter.shape, generator=source)


@torch.no_grad()
def _sampled(
    model: Any, positive: Tensor, negative: Tensor, pooled: Tensor | None = None, other: Tensor | None = None
) -> Tensor:
    from comfy.sample import sample

    latents = torch.zeros(1, 4, SIZE // 8, SIZE // 8)
    given = [{} if each is None else {"pooled_output": each} for each in (pooled, other)]
    return sample(
        model, _random(*latents.shape, seed=0), steps=STEPS, cfg=5.0, sampler_name="euler", scheduler="normal",
        positive=[[positive, given[0]]], negative=[[negative, given[1]]],
        latent_image=latents, disable_pbar=True, seed=0,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
