"""Tiny checkpoints of every learned reward, in the official file formats and under the official key names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nulltta.rewards.mps import CONDITION

from ..tiny import clip_tokenizer

WIDTH, HIDDEN, FEATURES, LAYERS, PATCH, SIDE = 64, 128, 24, 2, 7, 28
PATCHES = (SIDE // PATCH) ** 2
_SIZES = {
    "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
}  # fmt: skip


def clip_directory(folder: Path, seed: int = 0, features: int = FEATURES) -> Path:
    """What `save_pretrained` of a CLIPModel, its tokenizer and its processor leave."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = clip_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(seed)
    CLIPModel(
        CLIPConfig(
            text_config={**_SIZES, **text}, vision_config={**_SIZES, "image_size": SIDE, "patch_size": PATCH},
            projection_dim=features,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)  # fmt: skip
    return folder


def mps_directory(folder: Path) -> Path:
    """MPS's file, as `imscore` writes it, and the configuration and the tokenizer of its CLIP.

    Tokens that do not occur in the condition are embedded so that they are unlike those that do.
    """
    clip = load_file(clip_directory(folder) / "model.safetensors")
    tokens = clip["text_model.embeddings.token_embedding.weight"]
    asked = clip_tokenizer()(CONDITION, truncation=True, return_tensors="pt").input_ids[0]
    sign = -torch.ones(len(tokens), 1)
    sign[asked] = 1.0
    common, own = torch.randn((len(tokens) + 1, WIDTH), generator=torch.Generator().manual_seed(3)).split(
        [1, len(tokens)]
    )
    clip["text_model.embeddings.token_embedding.weight"] = sign * common + 0.5 * own
    head, hidden = FEATURES // 2, 4 * FEATURES
    shapes: dict[str, tuple[int, ...]] = {}
    constants: dict[str, Tensor] = {}
    for layer in range(LAYERS):
        cross, own = (f"mps.cross_model.layers.{layer}.{i}.fn" for i in (0, 1))
        shapes |= {
            f"{cross}.norm.weight": (FEATURES,), f"{own}.norm.weight": (FEATURES,),
            f"{cross}.to_q.weight": (FEATURES, FEATURES), f"{cross}.to_kv.weight": (2 * head, FEATURES),
            f"{cross}.to_out.weight": (FEATURES, FEATURES), f"{cross}.ff.0.weight": (2 * hidden, FEATURES),
            f"{cross}.ff.2.weight": (FEATURES, hidden), f"{own}.attn_out.weight": (FEATURES, FEATURES),
            f"{own}.fused_attn_ff_proj.weight": (FEATURES + 2 * head + 2 * hidden, FEATURES),
            f"{own}.ff_out.1.weight": (FEATURES, hidden),
        }  # fmt: skip
        constants |= {f"{each}.norm.bias": torch.zeros(FEATURES) for each in (cross, own)}
        constants[f"{own}.rotary_emb.inv_freq"] = 1.0 / 10000 ** (torch.arange(0, head, 2).float() / head)
    state = {f"mps.model.{name}": value for name, value in clip.items()} | _random(shapes) | constants
    save_file(state, folder / "model.safetensors")
    return folder


def siglip_directory(folder: Path, tokenizer: Any = None) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    tokenizer = tokenizer or t5_tokenizer()
    torch.manual_seed(0)
    model = SiglipModel(
        SiglipConfig(
            text_config={**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
            vision_config={**_SIZES, "image_size": SIDE, "patch_size": PATCH},
        )
    )
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=2).save_pretrained(folder)
    return _siglip(folder, model, tokenizer)


def siglip2_directory(folder: Path) -> Path:
    """SigLIP 2 of fixed resolution: a SiglipModel, with Gemma's tokenizer."""
    return siglip_directory(folder, gemma_tokenizer())


def naflex_directory(folder: Path) -> Path:
    """SigLIP 2 of variable resolution: a Siglip2Model."""
    from transformers import Siglip2Config, Siglip2ImageProcessorPil, Siglip2Model

    tokenizer = gemma_tokenizer()
    torch.manual_seed(1)
    model = Siglip2Model(
        Siglip2Config(
            text_config={**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
            vision_config={**_SIZES, "patch_size": PATCH, "num_patches": 9},
        )
    )
    Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=PATCHES).save_pretrained(folder)
    return _siglip(folder, model, tokenizer)


def _siglip(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.logit_scale.data.fill_(1.0)
    model.logit_bias.data.fill_(-0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def t5_tokenizer() -> Any:
    """A sentencepiece vocabulary of letters and the word Yes."""
    from transformers import T5Tokenizer

    letters = "▁abcdefghijklmnopqrstuvwxyz"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁Yes", -1.0), *((letter, -2.0) for letter in letters)]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def gemma_tokenizer() -> Any:
    """As SigLIP 2 sets it: an end, no beginning, padding on the right, no mask."""
    from transformers import GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"▁abcdefghijklmnopqrstuvwxyz"]
    return GemmaTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], add_bos_token=False, add_eos_token=True,
        padding_side="right", do_lower_case=True, model_input_names=["input_ids"], model_max_length=64,
    )  # fmt: skip


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


def mlp_state(width: int, seed: int = 1, last: int = 7) -> dict[str, Tensor]:
    """The MLP of LAION and of ImageReward: dropouts are at the places between."""
    places = {0: (32, width), 2: (16, 32), 4: (8, 16), 6: (4, 8), last: (1, 4)}
    return _random({k: v for i, shape in places.items() for k, v in _pair(f"layers.{i}", *shape).items()}, seed)


def imagereward_state(
    vocabulary: int, width: int = WIDTH, hidden: int = WIDTH // 2, positions: int = 40, last: int = 7
) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "visual_encoder.cls_token": (1, 1, width), "visual_encoder.pos_embed": (1, PATCHES + 1, width),
        **_pair("visual_encoder.patch_embed.proj", width, 3, PATCH, PATCH), **_pair("visual_encoder.norm", width),
        "text_encoder.embeddings.word_embeddings.weight": (vocabulary, hidden),
        "text_encoder.embeddings.position_embeddings.weight": (positions, hidden),
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
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(positions)[None]
    return {**state, **{f"mlp.{key}": value for key, value in mlp_state(hidden, last=last).items()}}


def imagereward_directory(folder: Path) -> Path:
    tokenizer = bert_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.save(imagereward_state(len(tokenizer)), folder / "ImageReward.pt")
    return folder


def cyclereward_directory(folder: Path) -> Path:
    """The same architecture, with activations in the MLP and a tokenizer with two more tokens, as the official one."""
    tokenizer = bert_tokenizer()
    tokenizer.save_pretrained(folder)
    state = imagereward_state(len(tokenizer) + 2, positions=130, last=8)
    torch.save(state, folder / "CycleReward-Combo.pth")
    return folder


def aesthetic_v2_5_directory(folder: Path) -> Path:
    """SigLIP and the MLP's official file side by side."""
    siglip_directory(folder)
    state = {name.replace("layers.", "scoring_head."): value for name, value in mlp_state(WIDTH, last=8).items()}
    torch.save(state, folder / "aesthetic_predictor_v2_5.pth")
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


# Qwen2.5-VL's own, without videos.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer() -> Any:
    """Bytes and the word Yes, with the special tokens and the chat template of Qwen-VL."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    pieces = [*bytes_to_unicode().values(), "Ye", "Yes"]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("Y", "e"), ("Ye", "s")],
        additional_special_tokens=[
            "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
        ],
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def qwen_directory(folder: Path, version: str = "2.5", tokens: int = 0) -> Path:
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL: what `save_pretrained` of model, tokenizer and image processor leave.

    tokens: how many rows the embedding has beyond the tokenizer's vocabulary.
    """
    import transformers

    tokenizer = qwen_tokenizer()
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer) + tokens, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": None,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6},
        "initializer_range": 0.3,
    }  # fmt: skip
    vision: dict[str, Any] = {"depth": LAYERS, "hidden_size": 32, "num_heads": 2, "initializer_range": 0.3}
    special: dict[str, Any] = {
        "2": {"embed_dim": 32, "mlp_ratio": 2},
        "2.5": {"intermediate_size": 64, "out_hidden_size": 32, "fullatt_block_indexes": [1], "window_size": 56},
        "3": {
            "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    }  # fmt: skip
    family = {"2": "Qwen2VL", "2.5": "Qwen2_5_VL", "3": "Qwen3VL"}[version]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        text_config=text | ({"head_dim": 16} if version == "3" else {}), vision_config=vision | special[version],
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=version != "2",
    )  # fmt: skip
    getattr(transformers, f"{family}ForConditionalGeneration")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    patch = {"patch_size": 16} if version == "3" else {}
    transformers.Qwen2VLImageProcessorPil(
        min_pixels=56 * 56, max_pixels=28 * 28 * 16, **patch
    ).save_pretrained(folder)  # fmt: skip
    return folder


def hpsv3_directory(folder: Path) -> Path:
    """HPSv3's file under its official names, and Qwen2-VL's configuration, tokenizer and processor beside it."""
    qwen_directory(folder, "2", tokens=1)
    state = load_file(folder / "model.safetensors")  # save_pretrained keeps the names of earlier versions
    head = {0: (16, 32), 3: (8, 16), 5: (2, 8)}
    state |= _random({k: v for i, shape in head.items() for k, v in _pair(f"rm_head.{i}", *shape).items()}, seed=2)
    save_file(state, folder / "HPSv3.safetensors", {"format": "pt"})
    (folder / "model.safetensors").unlink()
    return folder


def instructblip_directory(folder: Path, language: str = "t5") -> Path:
    """What `save_pretrained` of InstructBLIP (on a "t5" or a "llama") and of its processor leave."""
    from transformers import (
        BlipImageProcessorPil,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
        LlamaConfig,
        T5Config,
    )

    tokenizer, instructions = t5_tokenizer(), bert_tokenizer()
    InstructBlipProcessor(
        BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer, instructions, num_query_tokens=4
    ).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    text = {
        "t5": T5Config(
            vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=LAYERS, num_heads=2,
            decoder_start_token_id=0, tie_word_embeddings=False,
        ),
        "llama": LlamaConfig(vocab_size=len(tokenizer), **sizes, initializer_range=0.3),
    }[language]  # fmt: skip
    torch.manual_seed(0)
    InstructBlipForConditionalGeneration(
        InstructBlipConfig(
            vision_config={**sizes, "image_size": SIDE, "patch_size": PATCH, "initializer_range": 0.3},
            qformer_config={
                **sizes, "vocab_size": len(instructions), "encoder_hidden_size": 32, "max_position_embeddings": 128,
                "initializer_range": 0.3,
            },
            text_config=text.to_dict(), num_query_tokens=4,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"), initializer_range=0.3,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def sharded(folder: Path, kind: str = "safetensors") -> list[Path]:
    """Cuts a checkpoint's weights into shards, as `save_pretrained` does; returns their paths."""
    import transformers

    whole = folder / "model.safetensors"
    if kind == "safetensors":
        (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
        model = getattr(transformers, architecture).from_pretrained(folder)
        model.save_pretrained(folder, max_shard_size=whole.stat().st_size // 2)
        whole.unlink()
        return sorted(folder.glob("model-0*.safetensors"))
    state, names = load_file(whole), [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]  # of earlier versions
    shards = {file: {name: state[name] for name in sorted(state)[i::2]} for i, file in enumerate(names)}
    for file, tensors in shards.items():
        torch.save(tensors, folder / file)
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in state.values())},
        "weight_map": {name: file for file, tensors in shards.items() for name in tensors},
    }
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    whole.unlink()
    return [folder / name for name in names]
