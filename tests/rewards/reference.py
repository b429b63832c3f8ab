"""The official architectures, written directly from their key names, to compare the loaded rewards with."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def open_clip_features(state: Mapping[str, Tensor], pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """open_clip's `CLIP.encode_image` and `encode_text`, unit length: image (B, F) and text (B, F)."""
    x = functional.conv2d(pixels, state["visual.conv1.weight"], stride=state["visual.conv1.weight"].shape[-1])
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], 1) + state["visual.positional_embedding"]
    x = _transformer(state, "visual.transformer", _norm(state, "visual.ln_pre", x), heads=1, mask=None)
    image = _norm(state, "visual.ln_post", x)[:, 0] @ state["visual.proj"]
    mask = torch.full((ids.shape[1],) * 2, -torch.inf, dtype=pixels.dtype).triu(1)
    y = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    y = _norm(state, "ln_final", _transformer(state, "transformer", y, heads=1, mask=mask))
    text = y[torch.arange(len(ids)), ids.argmax(1)] @ state["text_projection"]  # the end token has the highest id
    return functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)


def _transformer(state: Mapping[str, Tensor], prefix: str, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    layers = {int(m[1]) for name in state if (m := re.match(rf"{prefix}\.resblocks\.(\d+)\.", name))}
    for layer in sorted(layers):
        block = f"{prefix}.resblocks.{layer}"
        y = _norm(state, f"{block}.ln_1", x).transpose(0, 1)
        y, _ = functional.multi_head_attention_forward(
            y, y, y, x.shape[-1], heads,
            state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"], None, None, False, 0.0,
            state[f"{block}.attn.out_proj.weight"], state[f"{block}.attn.out_proj.bias"],
            training=False, need_weights=False, attn_mask=mask,
        )  # fmt: skip
        x = x + y.transpose(0, 1)
        y = functional.gelu(_linear(state, f"{block}.mlp.c_fc", _norm(state, f"{block}.ln_2", x)))
        x = x + _linear(state, f"{block}.mlp.c_proj", y)
    return x


def image_reward(state: Mapping[str, Tensor], pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """ImageReward's `score`: (B,)."""
    feature = blip_feature(state, pixels, ids, mask)
    return (mlp(state, feature, "mlp.") - 0.16717362830052426) / 1.0333394966054072


def cycle_reward(state: Mapping[str, Tensor], pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """CycleReward's `score`: (B,)."""
    x = blip_feature(state, pixels, ids, mask)
    for place in (0, 2, 4, 6):
        x = functional.gelu(_linear(state, f"mlp.layers.{place}", x))
    return _linear(state, "mlp.layers.8", x)[:, 0]


def blip_feature(state: Mapping[str, Tensor], pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The first token's feature of BLIP's image-grounded text encoder, one head everywhere: (B, F)."""
    s = {name.removeprefix("blip."): value for name, value in state.items()}
    x = functional.conv2d(
        pixels, s["visual_encoder.patch_embed.proj.weight"], s["visual_encoder.patch_embed.proj.bias"],
        stride=s["visual_encoder.patch_embed.proj.weight"].shape[-1],
    ).flatten(2).transpose(1, 2)  # fmt: skip
    x = torch.cat([s["visual_encoder.cls_token"].expand(len(x), -1, -1), x], 1) + s["visual_encoder.pos_embed"]
    for layer in range(2):
        block = f"visual_encoder.blocks.{layer}"
        q, k, v = _linear(s, f"{block}.attn.qkv", _norm(s, f"{block}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + _linear(s, f"{block}.attn.proj", _attend(q, k, v))
        y = functional.gelu(_linear(s, f"{block}.mlp.fc1", _norm(s, f"{block}.norm2", x, 1e-6)))
        x = x + _linear(s, f"{block}.mlp.fc2", y)
    seen = _norm(s, "visual_encoder.norm", x, 1e-6)

    y = s["text_encoder.embeddings.word_embeddings.weight"][ids]
    y = y + s["text_encoder.embeddings.position_embeddings.weight"][: ids.shape[1]]
    y = _norm(s, "text_encoder.embeddings.LayerNorm", y, 1e-12)
    for layer in range(2):
        block = f"text_encoder.encoder.layer.{layer}"
        for name, keys, bias in (("attention", None, (mask[:, None] - 1) * 1e9), ("crossattention", seen, None)):
            at = f"{block}.{name}"
            source = y if keys is None else keys
            found = _attend(
                _linear(s, f"{at}.self.query", y), _linear(s, f"{at}.self.key", source),
                _linear(s, f"{at}.self.value", source), bias,
            )  # fmt: skip
            y = _norm(s, f"{at}.output.LayerNorm", _linear(s, f"{at}.output.dense", found) + y, 1e-12)
        z = _linear(s, f"{block}.output.dense", functional.gelu(_linear(s, f"{block}.intermediate.dense", y)))
        y = _norm(s, f"{block}.output.LayerNorm", z + y, 1e-12)
    return y[:, 0]


def mps_feature(state: Mapping[str, Tensor], image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    """The image's first token after MPS's cross-attention, two heads: image (B, m, F), text (B, n, F), an added mask
    (B, n); (B, F). Written from the code of the package `imscore`."""
    x = image
    for layer in range(2):
        s = {name.partition(f"mps.cross_model.layers.{layer}.")[2]: value for name, value in state.items()}
        y = _norm(s, "0.fn.norm", x)
        q, (k, v) = y @ s["0.fn.to_q.weight"].T, (text @ s["0.fn.to_kv.weight"].T).chunk(2, -1)
        heads = [_attend(each, k, v, mask[:, None]) for each in q.chunk(2, -1)]
        ff, gate = (y @ s["0.fn.ff.0.weight"].T).chunk(2, -1)
        x = (
            x
            + torch.cat(heads, -1) @ s["0.fn.to_out.weight"].T
            + (functional.silu(gate) * ff) @ s["0.fn.ff.2.weight"].T
        )
        width, hidden = x.shape[-1], s["1.fn.ff_out.1.weight"].shape[1]
        fused = _norm(s, "1.fn.norm", x) @ s["1.fn.fused_attn_ff_proj.weight"].T
        q, k, v, ff, gate = fused.split((width, width // 2, width // 2, hidden, hidden), -1)
        angles = torch.arange(x.shape[1])[:, None] * s["1.fn.rotary_emb.inv_freq"]
        heads = [_attend(_turned(each, angles), _turned(k, angles), v) for each in q.chunk(2, -1)]
        x = (
            x
            + torch.cat(heads, -1) @ s["1.fn.attn_out.weight"].T
            + (functional.silu(gate) * ff) @ s["1.fn.ff_out.1.weight"].T
        )
    return x[:, 0]


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Multiply by e^{i·angle} the complex numbers whose real parts are the first half of the channels."""
    turned = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)


def mlp(state: Mapping[str, Tensor], features: Tensor, prefix: str = "", last: int = 7) -> Tensor:
    for place in (0, 2, 4, 6, last):
        features = _linear(state, f"{prefix}layers.{place}", features)
    return features[:, 0]


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    weights = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    return (weights if bias is None else weights + bias).softmax(-1) @ v


def _linear(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: Mapping[str, Tensor], name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)
