"""Tiny pipelines of further text-to-image classes, beside those of the test suite (`tiny_pipelines`)."""

from __future__ import annotations

from typing import Any

import torch

from .tiny import clip_tokenizer, qwen_text_encoder
from .tiny_builders import _decoder_only, _flux2, _shifted, _tokenizer, loud
from .tiny_families import _listen, _t5, _t5_tokenizer, _vae
from .tiny_pipelines import SIZE, TinyPipeline
from .tiny_vision import VisionProcessor, qwen3_vl, qwen_tokenizer


def flow(diffusers: Any, **options: Any) -> Any:
    """The scheduler of most recent pipelines."""
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def qwen_vae(diffusers: Any, kind: str = "AutoencoderKLQwenImage", **options: Any) -> Any:
    """A video autoencoder of four channels with given means and deviations, as QwenImage's and Wan's."""
    config = {
        "base_dim": 6, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
        "temperal_downsample": [False, True, True], "latents_mean": [0.1, 0.0, -0.1, 0.2],
        "latents_std": [1.0, 1.5, 0.8, 1.2],
    }  # fmt: skip
    return getattr(diffusers, kind)(**{**config, **options})


def longcat(diffusers: Any) -> Any:
    tokenizer = clip_tokenizer()
    transformer = diffusers.LongCatImageTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip
    return diffusers.LongCatImagePipeline(
        scheduler=flow(diffusers, use_dynamic_shifting=True),
        vae=_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=qwen_text_encoder(tokenizer), tokenizer=tokenizer, text_processor=VisionProcessor(tokenizer),
        transformer=_listen(transformer, "context_embedder", by=3),
    )  # fmt: skip


def ovis(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    transformer = diffusers.OvisImageTransformer2DModel(
        in_channels=16, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return diffusers.OvisImagePipeline(
        scheduler=flow(diffusers, use_dynamic_shifting=True), vae=_shifted(), tokenizer=tokenizer,
        text_encoder=_decoder_only("Qwen3", tokenizer), transformer=_listen(transformer, "context_embedder.", by=3),
    )  # fmt: skip


def hunyuan_image(diffusers: Any) -> Any:
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    tokenizer, glyphs = clip_tokenizer(), ByT5Tokenizer()
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=16, text_embed_2_dim=32, rope_axes_dim=(8, 8),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32), layers_per_block=1,
        spatial_compression_ratio=2, sample_size=16, scaling_factor=0.75,
    )  # fmt: skip
    glyph_encoder = T5Config(vocab_size=len(glyphs), d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    return diffusers.HunyuanImagePipeline(
        scheduler=flow(diffusers, shift=5.0), vae=vae, text_encoder=qwen_text_encoder(tokenizer), tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(glyph_encoder).eval(), tokenizer_2=glyphs,
        transformer=_listen(transformer, "context_embedder.", by=3),
    )  # fmt: skip


def prx(diffusers: Any) -> Any:
    transformer = diffusers.PRXTransformer2DModel(
        in_channels=4, patch_size=2, context_in_dim=32, hidden_size=16, mlp_ratio=2.0, num_heads=2, depth=2,
        axes_dim=[4, 4],
    )  # fmt: skip
    tokenizer = _t5_tokenizer()
    tokenizer.model_max_length = 32
    return diffusers.PRXPipeline(
        transformer=loud(_listen(transformer, "txt_in", by=3)), scheduler=flow(diffusers, shift=3.0),
        text_encoder=_t5(), tokenizer=tokenizer, vae=_shifted(),
    )  # fmt: skip


def bria_fibo(diffusers: Any) -> Any:
    from transformers import LlamaConfig, LlamaModel

    tokenizer = _tokenizer()
    encoder = LlamaConfig(  # an empty text is the token 128000 of its checkpoint's language model
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=128_001, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    transformer = diffusers.BriaFiboTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, text_encoder_dim=16, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip
    return diffusers.BriaFiboPipeline(
        transformer=_listen(transformer, "context_embedder", "caption_projection", by=3),
        scheduler=flow(diffusers, use_dynamic_shifting=True), vae=qwen_vae(diffusers, "AutoencoderKLWan"),
        text_encoder=LlamaModel(encoder).eval(), tokenizer=tokenizer,
    )  # fmt: skip


def nucleus(diffusers: Any) -> Any:
    tokenizer = qwen_tokenizer()
    transformer = diffusers.NucleusMoEImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=4, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 4, 8), mlp_ratio=2.0, num_experts=2, moe_intermediate_dim=16,
        capacity_factors=2.0,
    )  # fmt: skip
    return diffusers.NucleusMoEImagePipeline(
        transformer=loud(_listen(transformer, "add_v_proj", "to_out", by=3)),
        scheduler=flow(diffusers, use_dynamic_shifting=True), vae=qwen_vae(diffusers),
        text_encoder=qwen3_vl(tokenizer), processor=VisionProcessor(tokenizer),
    )  # fmt: skip


def lumina(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=16, num_layers=2, num_attention_heads=2,
        num_kv_heads=1, multiple_of=8, cross_attention_dim=16,
    )  # fmt: skip
    torch.nn.init.normal_(transformer.pad_token)  # its class leaves it as the memory was
    return diffusers.LuminaPipeline(
        transformer=loud(_listen(transformer, "attn2.to_v", "caption", by=3)), scheduler=flow(diffusers),
        vae=_vae(block_out_channels=(4,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
                 up_block_types=("UpDecoderBlock2D",) * 4),
        text_encoder=_decoder_only("Gemma2", tokenizer), tokenizer=tokenizer,
    )  # fmt: skip


def ernie(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    parts = {**_flux2(diffusers), "scheduler": flow(diffusers, shift=3.0)}
    parts["transformer"] = loud(
        diffusers.ErnieImageTransformer2DModel(
            hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=32, in_channels=16, out_channels=16,
            text_in_dim=16, rope_axes_dim=(4, 4, 8),
        )
    )  # fmt: skip
    return diffusers.ErnieImagePipeline(
        **parts, text_encoder=_decoder_only("Mistral", tokenizer), tokenizer=tokenizer, pe=None, pe_tokenizer=None
    )


def krea2(diffusers: Any) -> Any:
    tokenizer = qwen_tokenizer()
    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, timestep_embed_dim=16, text_hidden_dim=16, num_text_layers=2, text_num_attention_heads=2,
        text_num_key_value_heads=2, text_intermediate_size=32, num_layerwise_text_blocks=1, num_refiner_text_blocks=1,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return diffusers.Krea2Pipeline(
        scheduler=flow(diffusers, use_dynamic_shifting=True), vae=qwen_vae(diffusers),
        text_encoder=qwen3_vl(tokenizer, "Model"), tokenizer=tokenizer,
        transformer=loud(_listen(transformer, "txt_in", by=3)), text_encoder_select_layers=(1, 2),
    )  # fmt: skip


def glm_image(diffusers: Any) -> Any:
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    glyphs = ByT5Tokenizer()
    encoder = T5Config(vocab_size=len(glyphs), d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    transformer = diffusers.GlmImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        text_embed_dim=32, time_embed_dim=16, condition_dim=8, prior_vq_quantizer_codebook_size=16,
    )  # fmt: skip
    vae = _vae(latents_mean=[0.1, 0.0, -0.1, 0.2], latents_std=[1.0, 1.5, 0.8, 1.2])
    return diffusers.GlmImagePipeline(
        tokenizer=glyphs, processor=None, text_encoder=T5EncoderModel(encoder).eval(), vision_language_encoder=None,
        vae=vae, transformer=loud(transformer), scheduler=flow(diffusers, use_dynamic_shifting=True),
    )  # fmt: skip


def qwen_image_21(diffusers: Any) -> Any:
    tokenizer = qwen_tokenizer()
    transformer = diffusers.QwenImage21Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, context_in_dim=16,
        mlp_ratio=2, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    vae = qwen_vae(
        diffusers, "AutoencoderKLQwenImage21", decoder_base_dim=6, dim_mult=[1, 1, 1, 1, 1],
        temperal_downsample=[False, True, True, True],
    )  # fmt: skip
    return diffusers.QwenImage21Pipeline(
        scheduler=flow(diffusers, use_dynamic_shifting=True), vae=vae, text_encoder=qwen3_vl(tokenizer),
        processor=VisionProcessor(tokenizer), transformer=loud(transformer),
    )  # fmt: skip


IMAGES = (
    TinyPipeline("LongCatImagePipeline", longcat, call={**SIZE, "enable_prompt_rewrite": False}),
    TinyPipeline("OvisImagePipeline", ovis, call=SIZE),
    TinyPipeline("HunyuanImagePipeline", hunyuan_image, call=SIZE, guidance="nag"),
    TinyPipeline(  # diffusers cleans its texts with ftfy, and takes for granted that it is installed
        "PRXPipeline",
        prx,
        call={**SIZE, "use_resolution_binning": False, "skip_text_cleaning": True},
    ),
    TinyPipeline("BriaFiboPipeline", bria_fibo, call=SIZE, refused="for some texts only"),
    TinyPipeline("NucleusMoEImagePipeline", nucleus, call={**SIZE, "return_index": -1}, refused="in one branch only"),
    TinyPipeline("LuminaPipeline", lumina, call={"height": 64, "width": 64}),
    TinyPipeline("ErnieImagePipeline", ernie, call=SIZE),
    TinyPipeline("Krea2Pipeline", krea2, call={**SIZE, "max_sequence_length": 200}),
    TinyPipeline(
        "GlmImagePipeline",
        glm_image,
        call={**SIZE, "prior_token_ids": torch.arange(16)[None]},
        refused="there is no null text",
    ),
    TinyPipeline(
        "QwenImage21Pipeline",
        qwen_image_21,
        call={"height": 32, "width": 32, "use_kv_cache": False},
        refused="a fourth channel, such as transparency",
    ),
)
