"""Tiny video pipelines of families that share no parts with the others: measured for docs/families.md."""

from __future__ import annotations

from typing import Any

import torch

from .tiny import qwen_text_encoder
from .tiny_builders import _tokenizer, loud
from .tiny_families import _listen
from .tiny_images import flow
from .tiny_pipelines import PICTURE, SMALL, TinyPipeline
from .tiny_vision import CHAT
from .video_pipelines import FRAMES, _sight

SHORT = {
    "tokenizer_max_length": 16, "tokenizer_2_max_length": 8, "vision_num_semantic_tokens": 4, "system_message": "see ",
    "prompt_template_encode_start_idx": 0,
}  # fmt: skip
"""Of HunyuanVideo 1.5, whose pipeline gives these lengths and its system message as attributes."""


def _hunyuan_video_15(diffusers: Any) -> dict[str, Any]:
    from transformers import ByT5Tokenizer, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, T5Config, T5EncoderModel

    tokenizer, glyphs = _tokenizer(), ByT5Tokenizer()
    reads = Qwen2_5_VLTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    spells = T5Config(vocab_size=len(glyphs), d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    net = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        num_refiner_layers=1, mlp_ratio=2.0, text_embed_dim=16, text_embed_2_dim=32, image_embed_dim=8,
        rope_axes_dim=(4, 6, 6), target_size=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(8, 8), layers_per_block=1, spatial_compression_ratio=2,
        temporal_compression_ratio=2,
    )  # fmt: skip
    return {
        "text_encoder": Qwen2_5_VLTextModel(reads).eval(), "tokenizer": tokenizer, "vae": vae,
        "transformer": _listen(loud(net), "context_embedder", by=3), "scheduler": flow(diffusers, shift=7.0),
        "text_encoder_2": T5EncoderModel(spells).eval(), "tokenizer_2": glyphs,
        "guider": diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    }  # fmt: skip


def hunyuan_video_15(diffusers: Any) -> Any:
    """HunyuanVideo 1.5, whose null branch is combined by a guider."""
    return diffusers.HunyuanVideo15Pipeline(**_hunyuan_video_15(diffusers))


def hunyuan_video_15_i2v(diffusers: Any) -> Any:
    """The same with a picture as the first frame."""
    return diffusers.HunyuanVideo15ImageToVideoPipeline(**_hunyuan_video_15(diffusers), **_sight())


def _easy_animate(diffusers: Any, channels: int = 4, inpaint: bool = False) -> dict[str, Any]:
    """EasyAnimate's parts, with a picture's or a video's latents beside its own where there are more channels."""
    tokenizer = _tokenizer()
    tokenizer.chat_template = CHAT.replace("['content']", "['content'][0]['text']")
    net = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=channels, out_channels=4, sample_width=8,
        sample_height=8, num_layers=2, patch_size=2, time_embed_dim=8, text_embed_dim=16,
        add_noise_in_inpaint_model=inpaint,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLMagvit(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip
    return {
        "vae": vae, "text_encoder": qwen_text_encoder(tokenizer), "tokenizer": tokenizer,
        "transformer": _listen(loud(net), "text_proj", by=5),
        "scheduler": flow(diffusers, use_dynamic_shifting=True),
    }  # fmt: skip


def easy_animate(diffusers: Any) -> Any:
    """EasyAnimate."""
    return diffusers.EasyAnimatePipeline(**_easy_animate(diffusers))


def easy_animate_control(diffusers: Any) -> Any:
    """EasyAnimate that follows a video."""
    return diffusers.EasyAnimateControlPipeline(**_easy_animate(diffusers, 12))


def easy_animate_inpaint(diffusers: Any) -> Any:
    """EasyAnimate that keeps a part of a video."""
    return diffusers.EasyAnimateInpaintPipeline(**_easy_animate(diffusers, 9, inpaint=True))


def _ltx2(diffusers: Any) -> dict[str, Any]:
    """LTX-2's parts; it makes a sound beside the frames, by the same denoiser."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    tokenizer = _tokenizer(32, padding_side="left")
    text = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(tokenizer),
    }  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 16, "patch_size": 8})
    connectors = diffusers.pipelines.ltx2.LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=3, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8, video_connector_num_layers=1,
        video_connector_num_learnable_registers=None, audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None, connector_rope_base_seq_len=32, rope_double_precision=False,
    )  # fmt: skip
    net = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4,
        audio_cross_attention_dim=8, num_layers=1, caption_channels=16, rope_double_precision=False,
        vae_scale_factors=(8, 32, 32),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8,) * 4, decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 4, spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )  # fmt: skip
    sound = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, latent_channels=2, mel_bins=8,
        sample_rate=16000, mel_hop_length=160,
    )  # fmt: skip
    vocoder = diffusers.pipelines.ltx2.LTX2Vocoder(
        in_channels=16, hidden_channels=32, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], output_sampling_rate=16000,
    )  # fmt: skip
    return {
        "scheduler": flow(diffusers), "vae": vae, "audio_vae": sound, "tokenizer": tokenizer,
        "text_encoder": Gemma3ForConditionalGeneration(config).eval(), "connectors": connectors.eval(),
        "transformer": loud(net), "vocoder": vocoder,
    }  # fmt: skip


def ltx2(diffusers: Any) -> Any:
    """LTX-2."""
    return diffusers.LTX2Pipeline(**_ltx2(diffusers))


def ltx2_i2v(diffusers: Any) -> Any:
    """LTX-2 with a picture as the first frame."""
    return diffusers.LTX2ImageToVideoPipeline(**_ltx2(diffusers))


def ltx2_condition(diffusers: Any) -> Any:
    """LTX-2 with pictures at any frame."""
    return diffusers.LTX2ConditionPipeline(**_ltx2(diffusers))


def ltx2_in_context(diffusers: Any) -> Any:
    """LTX-2 with a video beside the one that it makes."""
    return diffusers.LTX2InContextPipeline(**_ltx2(diffusers))


def ltx2_hdr(diffusers: Any) -> Any:
    """LTX-2 that makes a video of a high dynamic range."""
    return diffusers.LTX2HDRPipeline(**_ltx2(diffusers))


ALONE = {
    f"{of}{name}": value
    for of in ("", "audio_")
    for name, value in {"stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0}.items()
}
"""LTX-2 under classifier-free guidance alone."""
VIDEO = torch.linspace(0, 1, 3 * 5 * 16 * 16).reshape(1, 3, 5, 16, 16)
FEW = {"height": 32, "width": 32, "num_frames": 9}
_SOUND = "denoises something else"
NEW_VIDEOS = (
    TinyPipeline("HunyuanVideo15Pipeline", hunyuan_video_15, call=FRAMES, attributes=SHORT),
    TinyPipeline(
        "HunyuanVideo15ImageToVideoPipeline", hunyuan_video_15_i2v, call={"num_frames": 5, "image": SMALL},
        attributes=SHORT,
    ),
    TinyPipeline("EasyAnimatePipeline", easy_animate, call=FRAMES),
    TinyPipeline(
        "EasyAnimateControlPipeline", easy_animate_control, call={**FRAMES, "control_video": VIDEO},
        refused="unexpected keyword argument 'text_encoder_index'",
    ),
    TinyPipeline(
        "EasyAnimateInpaintPipeline", easy_animate_inpaint,
        call={**FRAMES, "video": VIDEO, "mask_video": torch.full((1, 1, 5, 16, 16), 255.0)},
    ),
    TinyPipeline("LTX2Pipeline", ltx2, call={**FEW, **ALONE}, refused=_SOUND),
    TinyPipeline("LTX2ImageToVideoPipeline", ltx2_i2v, call={**FEW, **ALONE, "image": PICTURE}, refused=_SOUND),
    TinyPipeline("LTX2ConditionPipeline", ltx2_condition, call={**FEW, **ALONE}, refused=_SOUND),
    TinyPipeline("LTX2InContextPipeline", ltx2_in_context, call={**FEW, **ALONE}, refused=_SOUND),
    TinyPipeline(
        "LTX2HDRPipeline", ltx2_hdr, call={**FEW, "height": 64, "width": 64}, refused="not red, green and blue before"
    ),
)  # fmt: skip
"""Made from nothing."""
