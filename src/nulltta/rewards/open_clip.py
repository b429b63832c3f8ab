"""Checkpoints of open_clip, such as HPSv2's, in transformers' `CLIPModel`: the same tensors under other names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from nulltta.errors import LoadError

IGNORED = ("attn_mask",)  # a constant
_BLOCK = re.compile(r"(?P<visual>visual\.)?transformer\.resblocks\.(?P<layer>\d+)\.(?P<rest>.+)")
_INSIDE = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
_OUTSIDE = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}


def remap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors from open_clip's names to transformers'.

    Names that are not open_clip's are kept, so that the loader reports them.
    """
    return {new: value for name, tensor in state.items() for new, value in _renamed(name, tensor)}


def config(state: Mapping[str, Tensor], what: str) -> dict[str, Any]:
    """Read the sizes of a CLIP, as transformers' `CLIPConfig` takes them, off the shapes of a checkpoint's tensors.

    The number of attention heads leaves no trace in shapes. Heads are 64 wide, except in ViT-H-14's image encoder
    (width 1280), where they are 80 wide.

    Raises:
        LoadError: if a tensor from which a size is read is missing.
    """
    try:
        vision_width, _, patch, _ = state["visual.conv1.weight"].shape
        positions = len(state["visual.positional_embedding"])
        length, text_width = state["positional_embedding"].shape
        vocabulary = len(state["token_embedding.weight"])
        return {
            "projection_dim": state["text_projection"].shape[1],
            "text_config": {
                "hidden_size": text_width, "vocab_size": vocabulary, "max_position_embeddings": length,
                "num_attention_heads": max(1, text_width // 64),
                "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1,
                **_depth(state, "transformer.resblocks."),
            },
            "vision_config": {
                "hidden_size": vision_width, "patch_size": patch,
                "image_size": patch * round((positions - 1) ** 0.5),
                "num_attention_heads": 16 if vision_width == 1280 else max(1, vision_width // 64),
                **_depth(state, "visual.transformer.resblocks."),
            },
        }  # fmt: skip
    except KeyError as error:
        raise LoadError(f"{what}: the file lacks {error}") from error


def _depth(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Read the number and the width of the layers under a prefix."""
    layers = {name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)}
    return {
        "num_hidden_layers": len(layers), "intermediate_size": len(state[f"{prefix}0.mlp.c_fc.bias"]),
        "hidden_act": "gelu",
    }  # fmt: skip


def _renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield one tensor under its new name; the three projections of attention come in one tensor and leave in three."""
    block = _BLOCK.fullmatch(name)
    if block is None:
        if name in _TRANSPOSED:
            yield _TRANSPOSED[name], tensor.T.contiguous()
        else:
            yield _OUTSIDE.get(name, name), tensor
        return
    prefix = f"{'vision' if block['visual'] else 'text'}_model.encoder.layers.{block['layer']}"
    part, _, leaf = block["rest"].rpartition(".")
    if block["rest"] in ("attn.in_proj_weight", "attn.in_proj_bias"):
        for head, piece in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{prefix}.self_attn.{head}_proj.{block['rest'].rpartition('_')[2]}", piece
    elif part in _INSIDE:
        yield f"{prefix}.{_INSIDE[part]}.{leaf}", tensor
    else:
        yield name, tensor
