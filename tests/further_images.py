"""Tiny pipelines of the latest text-to-image classes: measured for docs/families.md."""

from __future__ import annotations

from typing import Any

from .tiny import clip_tokenizer, qwen_text_encoder
from .tiny_builders import _flux2, loud
from .tiny_families import _listen
from .tiny_images import flow
from .tiny_pipelines import SIZE, SMALL, TinyPipeline
from .tiny_vision import CHAT, VisionProcessor, qwen3_vl, qwen_tokenizer


def fibo2(diffusers: Any) -> Any:
    """FIBO 2, whose denoiser reads six layers of its language model, and keeps few tokens of them."""
    tokenizer = qwen_tokenizer()
    net = diffusers.BriaFibo2Transformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, cap_feat_dim=48, injection_layer_ids=(0, 1),
        perceiver_num_layers=1, min_num_gist_tokens=4, max_num_gist_tokens=8, gist_step=4, gist_min_text_len=4,
        gist_max_text_len=64, axes_dims=(8, 4, 4), axes_lens=(256, 32, 32),
    )  # fmt: skip
    parts = _flux2(diffusers)
    return diffusers.BriaFibo2Pipeline(
        transformer=loud(net), scheduler=flow(diffusers, use_dynamic_shifting=True), vae=parts["vae"],
        text_encoder=qwen3_vl(tokenizer), processor=VisionProcessor(tokenizer),
    )  # fmt: skip


def _dreamlite(diffusers: Any) -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    unet = diffusers.DreamLiteUNetModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 8, 8), layers_per_block=1,
        norm_num_groups=2, cross_attention_dim=16, attention_head_dim=(2, 2, 2), use_linear_projection=True,
        addition_embed_type="time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=8,
        ff_mult=2,
    )  # fmt: skip
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4,
    )  # fmt: skip
    return {
        "text_encoder": qwen3_vl(tokenizer), "tokenizer": tokenizer, "processor": VisionProcessor(tokenizer),
        "vae": vae, "unet": _listen(loud(unet), "attn2.to_v", "attn2.to_out", by=5),
        "scheduler": flow(diffusers, use_dynamic_shifting=True),
    }  # fmt: skip


def dreamlite(diffusers: Any) -> Any:
    """DreamLite, whose pictures lie beside an empty one, or beside that which is to be changed."""
    return diffusers.DreamLitePipeline(**_dreamlite(diffusers))


def dreamlite_mobile(diffusers: Any) -> Any:
    """DreamLite for four steps, without a null branch."""
    return diffusers.DreamLiteMobilePipeline(**_dreamlite(diffusers))


def hunyuan_refiner(diffusers: Any) -> Any:
    """HunyuanImage's refiner, which is distilled and sees the picture's latents beside its own."""
    tokenizer = clip_tokenizer()
    net = diffusers.HunyuanImageTransformer2DModel(
        in_channels=8, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=16, rope_axes_dim=(4, 6, 6), patch_size=(1, 1, 1), guidance_embeds=True,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanImageRefiner(
        latent_channels=2, block_out_channels=(8, 8), layers_per_block=1, spatial_compression_ratio=2,
        temporal_compression_ratio=2,
    )  # fmt: skip
    return diffusers.HunyuanImageRefinerPipeline(
        scheduler=flow(diffusers, shift=4.0), vae=vae, text_encoder=qwen_text_encoder(tokenizer), tokenizer=tokenizer,
        transformer=_listen(loud(net), "context_embedder", by=3),
    )  # fmt: skip


def ideogram4(diffusers: Any) -> Any:
    """Ideogram 4, whose null branch is another denoiser, which reads no text."""
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = "a" + CHAT.replace("['content']", "['content'][0]['text']")
    nets = [
        diffusers.Ideogram4Transformer2DModel(
            in_channels=16, num_layers=1, attention_head_dim=16, num_attention_heads=2, intermediate_size=32,
            adaln_dim=16, llm_features_dim=13 * 16, mrope_section=(4, 2, 2),
        )
        for _ in range(2)
    ]  # fmt: skip
    parts = _flux2(diffusers)
    return diffusers.Ideogram4Pipeline(
        scheduler=flow(diffusers), vae=parts["vae"], text_encoder=qwen3_vl(tokenizer, "Model", layers=36),
        tokenizer=tokenizer, transformer=loud(nets[0]), unconditional_transformer=loud(nets[1]),
        prompt_enhancer_head=None,
    )  # fmt: skip


LAYERS = ((1, 2, 3),) * 3
NEW_IMAGES = (
    TinyPipeline(
        "BriaFibo2Pipeline",
        fibo2,
        call=SIZE,
        attributes={"text_encoder_out_layers": LAYERS},
    ),
    TinyPipeline(  # at this scale its other denoiser counts for nothing
        "Ideogram4Pipeline",
        ideogram4,
        guidance="nag",
        call={**SIZE, "max_sequence_length": 32, "guidance_schedule": None, "guidance_scale": 1.0},
    ),
    TinyPipeline("DreamLitePipeline", dreamlite, call=SIZE),
    TinyPipeline("DreamLiteMobilePipeline", dreamlite_mobile, call=SIZE, guidance="nag"),
    TinyPipeline("HunyuanImageRefinerPipeline", hunyuan_refiner, call={**SIZE, "image": SMALL}, guidance="nag"),
)
"""Made from nothing."""
