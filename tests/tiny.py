"""Tiny checkpoints, built from configs with random weights, saved in diffusers' format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def clip_tokenizer(length: int = 77, padding_side: str = "right") -> Any:
    """A byte-level CLIPTokenizer without merges: each character is a token."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length, padding_side=padding_side)


def clip_text_encoder(tokenizer: Any, hidden_size: int = 32) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()  # fmt: skip


def qwen_text_encoder(tokenizer: Any, vision: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A Qwen2.5-VL with 16 channels, as Qwen-Image and Kandinsky 5 encode text with.

    Args:
        tokenizer: the tokenizer.
        vision: further fields of the configuration of what sees, where pictures are given to it.
        options: further fields of the whole configuration.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
            **(vision or {}),
        },
        **options,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def stable_diffusion(folder: Path, **options: Any) -> Any:
    """The stock pipeline of a checkpoint, without a safety checker and without a progress bar."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False, **options
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_stable_diffusion(folder: Path, prediction_type: str = "epsilon", **scheduler: Any) -> Path:
    """StableDiffusionPipeline with 8×8 latents and 16×16 images; SD 1.5's noise schedule."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=clip_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2,
            cross_attention_dim=32, attention_head_dim=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type, **scheduler,
        ),
        safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
    )  # fmt: skip
    for name, parameter in pipeline.unet.named_parameters():
        if "attn2.to_v" in name or "attn2.to_out" in name:  # so that random weights depend on the text
            parameter.data.mul_(10)
    pipeline.save_pretrained(folder)
    return folder
