"""Builders of the tiny pipelines that share no parts with the families of the contract suite."""

from __future__ import annotations

from typing import Any

import torch

from .tiny import clip_tokenizer, qwen_text_encoder
from .tiny_families import _clip, _listen, _t5, _t5_tokenizer, _vae
from .tiny_vision import CHAT


def _tokenizer(length: int = 512, **options: Any) -> Any:
    tokenizer = clip_tokenizer(length, **options)
    tokenizer.chat_template = CHAT
    return tokenizer


def _decoder_only(name: str, tokenizer: Any, width: int = 16, layers: int = 3, head: str = "Model") -> Any:
    """A language model by the name of its family in transformers: "Gemma2", "Qwen3" or "Llama"."""
    import transformers

    config = getattr(transformers, f"{name}Config")(
        hidden_size=width, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, attn_implementation="eager",
    )  # fmt: skip
    return getattr(transformers, f"{name}{head}")(config).eval()


def _eightfold() -> Any:
    """An autoencoder of the usual factor of 8, where a pipeline takes it for granted."""
    blocks = {"block_out_channels": (4,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4}
    return _vae(**blocks, up_block_types=("UpDecoderBlock2D",) * 4)


def _shifted() -> Any:
    return _vae(scaling_factor=0.3611, shift_factor=0.1159)


def _shifted_ddim(diffusers: Any, shift: float) -> Any:
    """The scheduler of CogView 3 and of CogVideoX."""
    return diffusers.CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, set_alpha_to_one=True, snr_shift_scale=shift, timestep_spacing="trailing",
        clip_sample=False,
    )  # fmt: skip


def cogview3(diffusers: Any) -> Any:
    transformer = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2, out_channels=4,
        text_embed_dim=32, time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8,
    )  # fmt: skip
    return diffusers.CogView3PlusPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=_vae(),
        transformer=_listen(transformer, "patch_embed.text_proj", by=3),
        scheduler=_shifted_ddim(diffusers, 4.0),
    )  # fmt: skip


def hunyuandit(diffusers: Any) -> Any:
    from transformers import BertConfig, BertModel

    tokenizer = clip_tokenizer()
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, in_channels=4,
        cross_attention_dim=32, cross_attention_dim_t5=32, pooled_projection_dim=16, hidden_size=24,
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    return diffusers.HunyuanDiTPipeline(
        vae=_eightfold(), text_encoder=BertModel(bert).eval(), tokenizer=tokenizer,
        transformer=_listen(transformer, "attn2.to_v", "attn2.to_out", "proj_out", by=5),
        scheduler=diffusers.DDPMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.02, prediction_type="v_prediction",
            clip_sample=False, steps_offset=1,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False, text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
    )  # fmt: skip


def lumina2(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=16, num_layers=2, num_refiner_layers=1,
        num_attention_heads=2, num_kv_heads=2, multiple_of=8, axes_dim_rope=(4, 2, 2), axes_lens=(512, 32, 32),
        cap_feat_dim=16,
    )  # fmt: skip
    return diffusers.Lumina2Pipeline(
        transformer=_listen(transformer, "caption_embedder", "attn.to_v", "attn.to_out", by=4),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0), vae=_shifted(), tokenizer=tokenizer,
        text_encoder=_decoder_only("Gemma2", tokenizer),
    )  # fmt: skip


def chroma(diffusers: Any) -> Any:
    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_hidden_dim=32, approximator_layers=1,
        approximator_num_channels=16,
    )  # fmt: skip
    return diffusers.ChromaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0), vae=_shifted(), text_encoder=_t5(),
        tokenizer=_t5_tokenizer(), transformer=_listen(transformer, "context_embedder", by=3),
    )  # fmt: skip


def z_image(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=16, rope_theta=256.0, t_scale=1000.0, axes_dims=[8, 4, 4], axes_lens=[512, 32, 32],
    )  # fmt: skip
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=_shifted(), tokenizer=tokenizer,
        text_encoder=_decoder_only("Qwen3", tokenizer),
        transformer=_listen(transformer, "cap_embedder", "to_v", "to_out", by=3),
    )  # fmt: skip


def hidream(diffusers: Any) -> Any:
    tokenizer, clip = clip_tokenizer(128), clip_tokenizer()
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_channels=[32, 16], text_emb_dim=64, num_routed_experts=2,
        num_activated_experts=1, axes_dims_rope=(4, 2, 2), max_resolution=(32, 32), llama_layers=(0, 1),
        force_inference_output=True,
    )  # fmt: skip
    return diffusers.HiDreamImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=_shifted(),
        text_encoder=_clip(clip, projected=True), tokenizer=clip, text_encoder_2=_clip(clip, projected=True),
        tokenizer_2=clip, text_encoder_3=_t5(), tokenizer_3=_t5_tokenizer(),
        text_encoder_4=_decoder_only("Llama", tokenizer, head="ForCausalLM"), tokenizer_4=tokenizer,
        transformer=loud(_listen(transformer, "caption_projection", "p_embedder", by=5)),
    )  # fmt: skip


def kandinsky5(diffusers: Any) -> Any:
    tokenizer, clip = _tokenizer(1024), clip_tokenizer()
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=32, time_dim=32, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=16, ff_dim=16, num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 2, 2), visual_cond=False,
    )  # fmt: skip
    return diffusers.Kandinsky5T2IPipeline(
        transformer=loud(transformer), vae=_vae(), text_encoder=qwen_text_encoder(tokenizer),
        tokenizer=tokenizer, text_encoder_2=_clip(clip), tokenizer_2=clip,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def bria(diffusers: Any) -> Any:
    transformer = diffusers.BriaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=None, axes_dims_rope=[0, 4, 4],
    )  # fmt: skip
    return diffusers.BriaPipeline(
        transformer=_listen(transformer, "context_embedder", by=3), vae=_vae(), text_encoder=_t5(),
        tokenizer=_t5_tokenizer(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), feature_extractor=None,
        image_encoder=None,
    )  # fmt: skip


def cogvideox(diffusers: Any) -> Any:
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=32, num_layers=1, sample_width=2, sample_height=2, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=16,
    )  # fmt: skip
    return diffusers.CogVideoXPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=_cogvideox_vae(diffusers),
        transformer=_listen(transformer, "patch_embed.text_proj", by=3),
        scheduler=_shifted_ddim(diffusers, 3.0),
    )  # fmt: skip


def _cogvideox_vae(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip


def mochi(diffusers: Any) -> Any:
    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
        in_channels=12, qk_norm="rms_norm", text_embed_dim=32, time_embed_dim=4, max_sequence_length=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12, out_channels=3, encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32), layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip
    return diffusers.MochiPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), vae=vae, text_encoder=_t5(),
        tokenizer=_t5_tokenizer(), transformer=transformer,
    )  # fmt: skip


def hunyuan_video(diffusers: Any) -> Any:
    tokenizer, clip = _tokenizer(), clip_tokenizer()
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True, text_embed_dim=16,
        pooled_projection_dim=32, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        mid_block_add_attention=True,
    )  # fmt: skip
    return diffusers.HunyuanVideoPipeline(
        text_encoder=_decoder_only("Llama", tokenizer), tokenizer=tokenizer, transformer=transformer, vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0), text_encoder_2=_clip(clip), tokenizer_2=clip,
    )  # fmt: skip


def latte(diffusers: Any) -> Any:
    transformer = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=32,
        in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        video_length=1,
    )  # fmt: skip
    return diffusers.LattePipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=_vae(),
        transformer=_listen(transformer, "attn2.to_v", "attn2.to_out", "proj_out", by=5),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )  # fmt: skip


def allegro(diffusers: Any) -> Any:
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, num_layers=1,
        cross_attention_dim=24, sample_width=8, sample_height=8, sample_frames=8, caption_channels=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLAllegro(
        down_block_types=("AllegroDownBlock3D",) * 4, up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip
    return diffusers.AllegroPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=vae, transformer=transformer,
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )  # fmt: skip


def _flux2(diffusers: Any, **transformer: Any) -> dict[str, Any]:
    """The scheduler, autoencoder and transformer of FLUX.2."""
    net = diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), **transformer,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return {"scheduler": scheduler, "vae": vae, "transformer": _listen(net, "context_embedder", by=3)}


def klein(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    encoder = _decoder_only("Qwen3", tokenizer, head="ForCausalLM")
    parts = _flux2(diffusers, guidance_embeds=False)
    return diffusers.Flux2KleinPipeline(**parts, tokenizer=tokenizer, text_encoder=encoder)


def flux2(diffusers: Any) -> Any:
    """FLUX.2-dev, whose chat messages hold lists of texts."""
    tokenizer = _tokenizer()
    tokenizer.chat_template = CHAT.replace("['content']", "['content'][0]['text']")
    encoder = _decoder_only("Mistral", tokenizer, head="ForCausalLM")
    return diffusers.Flux2Pipeline(**_flux2(diffusers), tokenizer=tokenizer, text_encoder=encoder)


def loud(net: Any) -> Any:
    """An untrained control network's last layers are zeros, which would prove nothing."""
    for name, parameter in net.named_parameters():
        if name.endswith("gate.weight"):  # HiDream leaves its gates as the memory was; trained ones are decided
            torch.nn.init.normal_(parameter, std=10.0)
        elif not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()
