"""A Stable Diffusion directory as one file in the original format, with the original's names of weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
VAE_ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip


def save_single_file(pipeline: Any, path: Path) -> Path:
    """Write the weights of a StableDiffusionPipeline to one .safetensors file."""
    from safetensors.torch import save_file

    layers = pipeline.unet.config.layers_per_block
    blocks = len(pipeline.vae.config.block_out_channels)
    weights = {f"model.diffusion_model.{_unet(k, layers)}": v for k, v in pipeline.unet.state_dict().items()}
    weights |= {f"first_stage_model.{_vae(k, blocks)}": v for k, v in pipeline.vae.state_dict().items()}
    for key, value in pipeline.text_encoder.state_dict().items():
        weights[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return path


def _renamed(key: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        key = re.sub(rf"(^|\.){re.escape(ours)}(\.|$)", rf"\g<1>{theirs}\g<2>", key)
    return key


def _unet(key: str, layers: int) -> str:
    if m := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key):
        side, block, kind, layer, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"output_blocks.{block * (layers + 1) + layers}.2.{rest}"
        number = block * (layers + 1) + layer + (1 if side == "down" else 0)
        place = f"{'input' if side == 'down' else 'output'}_blocks.{number}"
        return f"{place}.0.{_renamed(rest, RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"
    if m := re.fullmatch(r"mid_block\.(\w+)\.(\d+)\.(.+)", key):
        if m[1] == "attentions":
            return f"middle_block.1.{m[3]}"
        return f"middle_block.{2 * int(m[2])}.{_renamed(m[3], RESNET)}"
    return _renamed(key, UNET)


def _vae(key: str, blocks: int) -> str:
    def up(m: re.Match[str]) -> str:
        return f"up.{blocks - 1 - int(m[1])}."

    key = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", key)
    key = re.sub(r"up_blocks\.(\d+)\.", up, key)
    key = re.sub(r"(down|up)samplers\.0", r"\1sample", key)
    key = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("resnets", "block").replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if m := re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.+)", key):
        return f"{m[1]}.mid.attn_1.{_renamed(m[2], VAE_ATTENTION)}"
    return key
