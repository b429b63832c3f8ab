"""A tiny checkpoint of every family, in diffusers' format, loaded through its real `from_pretrained`.

Random weights hardly listen to the text: `_listen` makes the denoisers' text projections louder, so that a null text
has something to move.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from nulltta.testing import FamilyCase

from .tiny import clip_tokenizer, qwen_text_encoder, save_stable_diffusion


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


def _glm_tokenizer(folder: Path) -> Any:
    """ChatGLM's own tokenizer over a sentencepiece model of the tests' letters, which is trained into the folder."""
    import sentencepiece
    from diffusers.pipelines.kolors import ChatGLMTokenizer

    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat", "two red dogs", "ugly"]), model_writer=pieces, model_type="char",
        vocab_size=20, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(pieces.getvalue())
    return ChatGLMTokenizer(str(folder / "tokenizer.model"))


def _glm(vocabulary: int) -> Any:
    from diffusers.pipelines.kolors import ChatGLMModel
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    encoder = ChatGLMModel(
        ChatGLMConfig(
            num_layers=2, padded_vocab_size=vocabulary, hidden_size=32, ffn_hidden_size=16, kv_channels=8,
            num_attention_heads=4, seq_length=256, multi_query_attention=True, multi_query_group_num=2,
            add_qkv_bias=True, original_rope=True,
        )
    )  # fmt: skip
    for name, parameter in encoder.named_parameters():  # its class leaves them as the memory was
        if "norm" in name:
            torch.nn.init.ones_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


def save_kolors(folder: Path) -> Path:
    """KolorsPipeline, with the 1100 training steps of its checkpoint."""
    from diffusers import EulerDiscreteScheduler, KolorsPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    tokenizer = _glm_tokenizer(folder / "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, cross_attention_dim=16,
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 2), projection_class_embeddings_input_dim=80,
        encoder_hid_dim=32, encoder_hid_dim_type="text_proj",
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    KolorsPipeline(
        vae=_vae(scaling_factor=0.13025), text_encoder=_glm(tokenizer.vocab_size), tokenizer=tokenizer,
        unet=_listen(unet, "attn2.to_v", "attn2.to_out", "proj_out", by=4),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.014, beta_schedule="scaled_linear", num_train_timesteps=1100,
            steps_offset=1, timestep_spacing="leading",
        ),
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


def save_pixart(folder: Path) -> Path:
    """PixArtSigmaPipeline, DPM-Solver as the checkpoint has it."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=8, num_layers=1, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, caption_channels=32, use_additional_conditions=False,
    )  # fmt: skip
    PixArtSigmaPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=_vae(),
        transformer=_listen(transformer, "attn2.to_v", "attn2.to_out", "proj_out", by=5),
        scheduler=DPMSolverMultistepScheduler(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_sana(folder: Path) -> Path:
    """SanaPipeline, DPM-Solver with a flow's levels as the checkpoint has it."""
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    transformer = SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
        sample_size=16, timestep_scale=0.5,
    )  # fmt: skip
    vae = AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), downsample_block_type="conv",
        upsample_block_type="interpolate", scaling_factor=0.41407,
    )  # fmt: skip
    encoder = Gemma2Config(
        head_dim=16, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1,
        num_key_value_heads=2, vocab_size=len(tokenizer), attn_implementation="eager", pad_token_id=0,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    SanaPipeline(
        tokenizer=tokenizer, text_encoder=Gemma2Model(encoder).eval(), vae=vae,
        transformer=_listen(transformer, "attn2.to_v", "attn2.to_out", "proj_out", by=5),
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_flux(folder: Path, **changes: Any) -> Path:
    """FluxPipeline, with the distilled guidance input that Flux-dev has."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    parts = {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": _vae(scaling_factor=0.3611, shift_factor=0.1159), "text_encoder": _clip(tokenizer),
        "tokenizer": tokenizer, "text_encoder_2": _t5(), "tokenizer_2": _t5_tokenizer(),
        "transformer": _listen(transformer, "context_embedder", "text_embedder", by=3),
    }  # fmt: skip
    FluxPipeline(**{**parts, **changes}).save_pretrained(folder)
    return folder


def save_qwen(folder: Path) -> Path:
    """QwenImagePipeline with a text part of Qwen2.5-VL and its own autoencoder."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=6, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.0, -0.1, 0.2], latents_std=[1.0, 1.5, 0.8, 1.2],
    )  # fmt: skip
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True, shift_terminal=0.02),
        vae=vae, text_encoder=qwen_text_encoder(tokenizer), tokenizer=tokenizer,
        transformer=_listen(transformer, "img_mod", "attn.to_out", "add_v_proj", by=8),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_auraflow(folder: Path) -> Path:
    """AuraFlowPipeline."""
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    transformer = AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32, out_channels=4,
        pos_embed_max_size=256,
    )  # fmt: skip
    AuraFlowPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(multilingual=True), vae=_vae(),
        transformer=_listen(transformer, "norm1.linear", "attn.to_out", "attn.to_v", "add_v_proj", by=8),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_cogview4(folder: Path) -> Path:
    """CogView4Pipeline; its tokenizer pads on the left, as GLM's does."""
    from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler
    from transformers import GlmConfig, GlmModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(padding_side="left")
    encoder = GlmConfig(
        hidden_size=32, intermediate_size=8, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        head_dim=8, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformer = CogView4Transformer2DModel(
        patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=4, out_channels=4,
        text_embed_dim=32, time_embed_dim=8, condition_dim=4, sample_size=8, rope_axes_dim=(256, 256),
    )  # fmt: skip
    CogView4Pipeline(
        tokenizer=tokenizer, text_encoder=GlmModel(encoder).eval(), vae=_vae(),
        transformer=_listen(transformer, "patch_embed.text_proj", by=3),
        scheduler=FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True,
            time_shift_type="linear",
        ),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_wan(folder: Path) -> Path:
    """WanPipeline: a video model."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=32,
        freq_dim=64, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=16, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.0, -0.1, 0.2], latents_std=[1.0, 1.5, 0.8, 1.2],
    )  # fmt: skip
    WanPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(multilingual=True), vae=vae, transformer_2=None,
        transformer=_listen(transformer, "text_embedder", "attn2.to_out", "proj_out", by=2),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_ltx(folder: Path, **autoencoder: Any) -> Path:
    """LTXPipeline: a video model whose decoder has a timestep, as later checkpoints have it."""
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )

    torch.manual_seed(0)
    transformer = LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24,
        num_layers=1, caption_channels=32,
    )  # fmt: skip
    config = {
        "latent_channels": 4, "block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4,
        "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5, "patch_size": 1, "encoder_causal": True,
        "decoder_causal": False, "timestep_conditioning": True,
    }  # fmt: skip
    vae = AutoencoderKLLTXVideo(**{**config, **autoencoder})
    vae.latents_mean += torch.tensor([0.1, 0.0, -0.1, 0.2])
    vae.latents_std *= torch.tensor([1.0, 1.5, 0.8, 1.2])
    LTXPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=vae,
        transformer=_listen(transformer, "attn2.to_v", "attn2.to_out", "proj_out", by=3),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
        ),
    ).save_pretrained(folder)  # fmt: skip
    return folder


_CASES = (
    FamilyCase("sd", save_stable_diffusion),
    FamilyCase("sd2", lambda folder: save_stable_diffusion(folder, "v_prediction", timestep_spacing="trailing")),
    FamilyCase("sdxl", save_sdxl),
    FamilyCase("kolors", save_kolors),
    FamilyCase("sd3", save_sd3),
    FamilyCase("sd3 without t5", lambda folder: save_sd3(folder, t5=False, use_dynamic_shifting=True)),
    FamilyCase("pixart", save_pixart, call={"use_resolution_binning": False}),
    FamilyCase("sana", save_sana, call={"use_resolution_binning": False, "height": 32, "width": 32}),
    FamilyCase(
        "flux", save_flux, call={"guidance_scale": 1.0, "height": 16, "width": 16}, guidance="true_cfg_scale"
    ),
    FamilyCase(
        "qwen", save_qwen, call={"height": 32, "width": 32}, guidance="true_cfg_scale", tolerance=1e-5
    ),
    FamilyCase("auraflow", save_auraflow, call={"height": 16, "width": 16}),
    FamilyCase("cogview4", save_cogview4),
    FamilyCase(
        "wan", save_wan, call={"height": 16, "width": 16, "num_frames": 5}, tolerance=1e-5,
        learning_rate=0.001,  # of 512 tokens nearly all are zeros: the default, 0.01 on each, is far
    ),
    FamilyCase("ltx", save_ltx, call={"height": 32, "width": 32, "num_frames": 9}),
)  # fmt: skip
FAMILIES = {case.name: case for case in _CASES}
