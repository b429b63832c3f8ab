"""Run the nodes in a real ComfyUI, with a tiny Stable Diffusion of random weights: `python check.py PATH_OF_COMFYUI`.

ComfyUI loads the package as it loads every custom node, reads null texts from its own folder, and samples on the CPU by
its own sampler. A null text that is the same at all steps must give what the same embedding gives as the negative
prompt; one that differs must arrive at each step as it was learnt for the nearest timestep; and the caller's MODEL must
stay as it was.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta import NullText

STEPS, TOKENS, WIDTH = 4, 77, 32


def main(comfyui: str) -> None:
    """Check the nodes in the ComfyUI of a folder."""
    sys.path.insert(0, comfyui)
    del sys.argv[1:]
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import folder_paths
    import nodes

    with tempfile.TemporaryDirectory() as models:
        folder_paths.models_dir = models
        loading = nodes.load_custom_node(str(Path(__file__).parent))
        if inspect.isawaitable(loading):
            asyncio.run(loading)
        model, learnt = _model(), _null_text()
        learnt.save(Path(models) / "null_texts" / "steps.safetensors")
        load, apply = (nodes.NODE_CLASS_MAPPINGS[f"NullTTA{name}NullText"] for name in ("Load", "Apply"))
        assert load.INPUT_TYPES()["required"]["file"][0] == ["steps.safetensors"]
        (read,) = load().load("steps.safetensors")
    torch.testing.assert_close(read.values[0], learnt.values[0], rtol=0, atol=2e-3)  # differences are float16

    positive, negative = (_random(1, TOKENS, WIDTH, seed=seed) for seed in (1, 2))
    plain = _sampled(model, positive, negative)
    same = NullText([999.0], [{"encoder_hidden_states": negative[0]}], "", learnt.null)
    other = torch.zeros_like(negative)
    (patched,) = apply().apply(model, same)
    torch.testing.assert_close(_sampled(patched, positive, other), plain, rtol=0, atol=1e-5)
    assert not torch.allclose(_sampled(model, positive, other), plain, atol=1e-3)

    seen: list[tuple[float, Tensor]] = []

    def watch(apply_model: Any, call: dict[str, Any]) -> Tensor:
        time = float(model.model.model_sampling.timestep(call["timestep"][:1]))
        seen.append((time, call["c"]["c_crossattn"][call["cond_or_uncond"].index(1)]))
        return apply_model(call["input"], call["timestep"], **call["c"])

    watched = model.clone()
    watched.set_model_unet_function_wrapper(watch)
    _sampled(apply().apply(watched, learnt)[0], positive, other)
    assert len(seen) == STEPS
    for time, text in seen:
        assert torch.equal(text, learnt.at(time)["encoder_hidden_states"])
    assert len({float(text.sum()) for _, text in seen}) == STEPS
    assert "model_function_wrapper" not in model.model_options
    print("the same")


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _null_text() -> NullText:
    """Return a null text that differs between the steps."""
    null = {"encoder_hidden_states": torch.zeros(TOKENS, WIDTH)}
    values = [{"encoder_hidden_states": _random(TOKENS, WIDTH, seed=10 + i)} for i in range(STEPS)]
    return NullText([999.0, 666.0, 333.0, 0.0], values, "a cat", null)


def _model() -> Any:
    """Return a MODEL: ComfyUI's own U-Net of Stable Diffusion 1, small, with random weights."""
    from comfy.model_patcher import ModelPatcher
    from comfy.supported_models import SD15

    config = SD15({
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
        "channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1, "context_dim": WIDTH, "use_spatial_transformer": True, "legacy": False,
        "adm_in_channels": None, "use_linear_in_transformer": False, "use_temporal_attention": False,
        "dtype": torch.float32,
    })  # fmt: skip
    model = config.get_model({}, device="cpu")
    source = torch.Generator().manual_seed(0)
    for parameter in model.diffusion_model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=source)
    device = torch.device("cpu")
    return ModelPatcher(model.eval(), load_device=device, offload_device=device)


@torch.no_grad()
def _sampled(model: Any, positive: Tensor, negative: Tensor) -> Tensor:
    from comfy.sample import sample

    return sample(
        model, _random(1, 4, 8, 8, seed=0), steps=STEPS, cfg=5.0, sampler_name="euler", scheduler="normal",
        positive=[[positive, {}]], negative=[[negative, {}]], latent_image=torch.zeros(1, 4, 8, 8), disable_pbar=True,
        seed=0,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
