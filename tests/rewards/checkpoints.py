"""Tiny checkpoints of every learned reward, in the official file formats and under the official key names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tiny import clip_tokenizer
from torch import Tensor

WIDTH, HIDDEN, FEATURES, LAYERS, PATCH, SIDE = 64, 128, 24, 2, 7, 28
PATCHES = (SIDE // PATCH) ** 2


def clip_directory(folder: Path, seed: int = 0) -> Path:
    """What `save_pretrained` of a CLIPModel, its tokenizer and its processor leave."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = clip_tokenizer()
    sizes = {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    }  # fmt: skip
    text = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(seed)
    CLIPModel(
        CLIPConfig(
            text_config={**sizes, **text}, vision_config={**sizes, "image_size": SIDE, "patch_size": PATCH},
            projection_dim=FEATURES,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)  # fmt: skip
    return folder


def siglip_directory(folder: Path) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, T5Tokenizer

    letters = "▁abcdefghijklmnopqrstuvwxyz"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((letter, -2.0) for letter in letters)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    sizes = {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    model = SiglipModel(
        SiglipConfig(
            text_config={**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
            vision_config={**sizes, "image_size": SIDE, "patch_size": PATCH},
        )
    )
    model.logit_scale.data.fill_(1.0)
    model.logit_bias.data.fill_(-0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=2).save_pretrained(folder)
    return folder


def _random(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Gains near 1, everything else small."""
    generator = torch.Generator().manual_seed(seed)
    norms = ("ln_", "norm", "LayerNorm")
    return {
        name: torch.randn(shape, generator=generator) * (0.2 if len(shape) < 2 else 1.2 / shape[-1] ** 0.5)
        + float(name.endswith("weight") and any(norm in name for norm in norms))
        for name, shape in shapes.items()
    }


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def open_clip_state(vocabulary: int) -> dict[str, Tensor]:
    """ViT-H-14's key names (open_clip `CLIP`, not `CustomTextCLIP`)."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, WIDTH), "text_projection": (WIDTH, FEATURES), "logit_scale": (),
        "visual.class_embedding": (WIDTH,), "visual.positional_embedding": (PATCHES + 1, WIDTH),
        "visual.proj": (WIDTH, FEATURES), "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "token_embedding.weight": (vocabulary, WIDTH),
        **_pair("visual.ln_pre", WIDTH), **_pair("visual.ln_post", WIDTH), **_pair("ln_final", WIDTH),
    }  # fmt: skip
    for tower in ("visual.transformer", "transformer"):
        for layer in range(LAYERS):
            block = f"{tower}.resblocks.{layer}"
            shapes |= {
                f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{block}.attn.in_proj_bias": (3 * WIDTH,),
                **_pair(f"{block}.attn.out_proj", WIDTH, WIDTH), **_pair(f"{block}.ln_1", WIDTH),
                **_pair(f"{block}.ln_2", WIDTH), **_pair(f"{block}.mlp.c_fc", HIDDEN, WIDTH),
                **_pair(f"{block}.mlp.c_proj", WIDTH, HIDDEN),
            }  # fmt: skip
    return _random(shapes)


def hps_directory(folder: Path, name: str = "HPS_v2_compressed.pt") -> Path:
    """HPSv2's file, {"state_dict": ..., "epoch": ...} in half precision, and a tokenizer beside it."""
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(folder)
    state = {key: value.half() for key, value in open_clip_state(len(tokenizer)).items()}
    torch.save({"epoch": 1, "name": "hps", "state_dict": state}, folder / name)
    return folder


def mlp_state(width: int, seed: int = 1) -> dict[str, Tensor]:
    """LAION's and ImageReward's MLP: dropouts take the places between."""
    places = {0: (32, width), 2: (16, 32), 4: (8, 16), 6: (4, 8), 7: (1, 4)}
    return _random({k: v for i, shape in places.items() for k, v in _pair(f"layers.{i}", *shape).items()}, seed)


def imagereward_state(vocabulary: int, width: int = WIDTH, hidden: int = WIDTH // 2) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "visual_encoder.cls_token": (1, 1, width), "visual_encoder.pos_embed": (1, PATCHES + 1, width),
        **_pair("visual_encoder.patch_embed.proj", width, 3, PATCH, PATCH), **_pair("visual_encoder.norm", width),
        "text_encoder.embeddings.word_embeddings.weight": (vocabulary, hidden),
        "text_encoder.embeddings.position_embeddings.weight": (40, hidden),
        **_pair("text_encoder.embeddings.LayerNorm", hidden),
        **_pair("vision_proj", 8, width), **_pair("text_proj", 8, hidden),
    }  # fmt: skip
    shapes["visual_encoder.patch_embed.proj.bias"] = (width,)
    for layer in range(LAYERS):
        block = f"visual_encoder.blocks.{layer}"
        shapes |= {
            **_pair(f"{block}.norm1", width), **_pair(f"{block}.norm2", width),
            **_pair(f"{block}.attn.qkv", 3 * width, width), **_pair(f"{block}.attn.proj", width, width),
            **_pair(f"{block}.mlp.fc1", HIDDEN, width), **_pair(f"{block}.mlp.fc2", width, HIDDEN),
        }  # fmt: skip
        block = f"text_encoder.encoder.layer.{layer}"
        for attention, seen in (("attention", hidden), ("crossattention", width)):
            shapes |= {
                **_pair(f"{block}.{attention}.self.query", hidden, hidden),
                **_pair(f"{block}.{attention}.self.key", hidden, seen),
                **_pair(f"{block}.{attention}.self.value", hidden, seen),
                **_pair(f"{block}.{attention}.output.dense", hidden, hidden),
                **_pair(f"{block}.{attention}.output.LayerNorm", hidden),
            }
        shapes |= {
            **_pair(f"{block}.intermediate.dense", HIDDEN, hidden), **_pair(f"{block}.output.dense", hidden, HIDDEN),
            **_pair(f"{block}.output.LayerNorm", hidden),
        }  # fmt: skip
    state = {f"blip.{key}": value for key, value in _random(shapes).items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return {**state, **{f"mlp.{key}": value for key, value in mlp_state(hidden).items()}}


def imagereward_directory(folder: Path) -> Path:
    tokenizer = bert_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.save(imagereward_state(len(tokenizer)), folder / "ImageReward.pt")
    return folder


def bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


def aesthetic_directory(folder: Path) -> Path:
    """CLIP and the MLP's official file side by side."""
    clip_directory(folder)
    torch.save(mlp_state(FEATURES), folder / "sac+logos+ava1-l14-linearMSE.pth")
    return folder
