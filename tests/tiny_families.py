"""A tiny checkpoint of every family, in diffusers' format, loaded through its real `from_pretrained`.

Random weights hardly listen to the text: `_listen` makes the denoisers' text projections louder, so that a null text
has something to move.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny import clip_tokenizer, save_stable_diffusion


def _vae(**changes: Any) -> Any:
    from diffusers import AutoencoderKL

    config = {
        "block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    }  # fmt: skip
    return AutoencoderKL(**{**config, **changes})


def _clip(tokenizer: Any, hidden_size: int = 32, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, projection_dim=32, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)], extra_ids=0)


def _t5(width: int = 32, multilingual: bool = False) -> Any:
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    config, model = (UMT5Config, UMT5EncoderModel) if multilingual else (T5Config, T5EncoderModel)
    return model(
        config(vocab_size=30, d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4, decoder_start_token_id=0)
    ).eval()


def _listen(denoiser: Any, *names: str, by: float = 10.0) -> Any:
    hit = False
    for name, parameter in denoiser.named_parameters():
        if any(part in name for part in names):
            parameter.data.mul_(by)
            hit = True
    assert hit, f"no parameter is named like {names}"
    return denoiser


def save_sdxl(folder: Path) -> Path:
    """StableDiffusionXLPipeline, EulerDiscrete as the checkpoint has it."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, cross_attention_dim=64,
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 2), projection_class_embeddings_input_dim=80,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025), text_encoder=_clip(tokenizer),
        text_encoder_2=_clip(tokenizer, projected=True), tokenizer=tokenizer, tokenizer_2=tokenizer,
        unet=_listen(unet, "attn2.to_v", "attn2.to_out", "proj_out", "conv_out", by=8),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_sd3(folder: Path, t5: bool = True, **scheduler: Any) -> Path:
    """StableDiffusion3Pipeline; without T5 its third encoder is absent."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64,
        pos_embed_max_size=16,
    )  # fmt: skip
    StableDiffusion3Pipeline(
        transformer=_listen(transformer, "context_embedder", "text_embedder", by=3),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        vae=_vae(scaling_factor=1.5, shift_factor=0.06),
        text_encoder=_clip(tokenizer, projected=True), tokenizer=tokenizer,
        text_encoder_2=_clip(tokenizer, projected=True), tokenizer_2=tokenizer,
        text_encoder_3=_t5(64) if t5 else None, tokenizer_3=_t5_tokenizer() if t5 else None,
    ).save_pretrained(folder)  # fmt: skip
    return folder


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "sd": save_stable_diffusion,
    "sd2": lambda folder: save_stable_diffusion(folder, "v_prediction", timestep_spacing="trailing"),
    "sdxl": save_sdxl,
    "sd3": save_sd3,
    "sd3 without t5": lambda folder: save_sd3(folder, t5=False, use_dynamic_shifting=True),
}
