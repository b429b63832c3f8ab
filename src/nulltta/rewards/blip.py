"""BLIP's image encoder and image-grounded text encoder: ImageReward's tensor names in transformers' modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nulltta.errors import LoadError

IGNORED = (
    "text_encoder.embeddings.position_ids",  # 0, 1, 2, ...
    "vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias",  # used in pretraining only
)  # fmt: skip
_VISUAL = {
    "cls_token": "embeddings.class_embedding", "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding", "norm": "post_layernorm",
}  # fmt: skip
_INSIDE = {
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.qkv": "self_attn.qkv", "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


class Blip(nn.Module):
    """`visual_encoder` (BlipVisionModel) and `text_encoder` (BlipTextModel with cross-attention)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        self.visual_encoder = BlipVisionModel(BlipVisionConfig(**config["vision"]))
        self.text_encoder = BlipTextModel(BlipTextConfig(**config["text"]), add_pooling_layer=False)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode pixels (B, 3, H, W) and token ids and mask (B, L) together as the first token's feature (B, F)."""
        seen = self.visual_encoder(pixel_values=pixels).last_hidden_state  # (B, patches + 1, width)
        read = self.text_encoder(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False)
        feature: Tensor = read.last_hidden_state[:, 0]
        return feature


def remap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors from ImageReward's names, without "blip.", to those of `Blip`.

    Unknown names are kept, so that the loader reports them.
    """
    return {_renamed(name): tensor for name, tensor in state.items()}


def config(state: Mapping[str, Tensor], what: str) -> dict[str, Any]:
    """Read the sizes of the networks off the shapes of a checkpoint's tensors.

    Attention heads are 64 wide, as in BLIP's ViT-L and BERT.

    Raises:
        LoadError: if a tensor from which a size is read is missing.
    """
    try:
        width, _, patch, _ = state["visual_encoder.patch_embed.proj.weight"].shape
        positions = state["visual_encoder.pos_embed"].shape[1]
        vocabulary, hidden = state["text_encoder.embeddings.word_embeddings.weight"].shape
        return {
            "vision": {
                "hidden_size": width, "patch_size": patch, "image_size": patch * round((positions - 1) ** 0.5),
                "intermediate_size": len(state["visual_encoder.blocks.0.mlp.fc1.bias"]),
                "num_hidden_layers": _count(state, "visual_encoder.blocks."),
                "num_attention_heads": max(1, width // 64), "hidden_act": "gelu", "layer_norm_eps": 1e-6,
            },
            "text": {
                "vocab_size": vocabulary, "hidden_size": hidden, "encoder_hidden_size": width,
                "max_position_embeddings": len(state["text_encoder.embeddings.position_embeddings.weight"]),
                "intermediate_size": len(state["text_encoder.encoder.layer.0.intermediate.dense.bias"]),
                "num_hidden_layers": _count(state, "text_encoder.encoder.layer."),
                "num_attention_heads": max(1, hidden // 64), "hidden_act": "gelu", "layer_norm_eps": 1e-12,
                "is_decoder": True,  # the cross-attention layers, not the causal mask
            },
        }  # fmt: skip
    except KeyError as error:
        raise LoadError(f"{what}: the file lacks {error}") from error


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Count the layers under a prefix."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def _renamed(name: str) -> str:
    """Return one tensor's new name."""
    tower, _, rest = name.partition(".")
    if tower != "visual_encoder":
        return name
    if rest in _VISUAL:
        return f"{tower}.{_VISUAL[rest]}"
    part, _, leaf = rest.rpartition(".")
    if part in _VISUAL:
        return f"{tower}.{_VISUAL[part]}.{leaf}"
    if (block := _BLOCK.fullmatch(rest)) and block[2] in _INSIDE:
        return f"{tower}.encoder.layers.{block[1]}.{_INSIDE[block[2]]}.{block[3]}"
    return name
