"""Tiny video pipelines of the latest families, made from nothing: measured for docs/families.md."""

from __future__ import annotations

from typing import Any

from .further_videos import _ltx2
from .tiny_builders import _decoder_only, _listen, _tokenizer, hunyuan_video, kandinsky5, loud
from .tiny_families import _t5, _t5_tokenizer
from .tiny_images import flow, qwen_vae
from .tiny_pipelines import PICTURE, SIZE, SMALL, TinyPipeline
from .video_pipelines import FRAMES, _sight


def _motif(diffusers: Any, **transformer: Any) -> dict[str, Any]:
    net = diffusers.MotifVideoTransformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_single_layers=1, mlp_ratio=2.0, text_embed_dim=32, rope_axes_dim=(4, 6, 6), **transformer,
    )  # fmt: skip
    return {
        "scheduler": flow(diffusers, shift=7.0), "vae": qwen_vae(diffusers, "AutoencoderKLWan"),
        "transformer": _listen(loud(net), "context_embedder", by=3), "text_encoder": _t5(),
        "tokenizer": _t5_tokenizer(),
        "guider": diffusers.ClassifierFreeGuidance(guidance_scale=6.0), "feature_extractor": None,
    }  # fmt: skip


def _sighted_encoder(tokenizer: Any) -> Any:
    """The encoder of T5Gemma 2, which sees pictures beside the text."""
    from transformers import T5Gemma2Encoder, T5Gemma2EncoderConfig

    reads = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
        "dropout_rate": 0.0,
    }  # fmt: skip
    sees = {
        "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    config = T5Gemma2EncoderConfig(text_config=reads, vision_config=sees, mm_tokens_per_image=4)
    return T5Gemma2Encoder(config, eoi_token_index=0).eval()


def motif(diffusers: Any) -> Any:
    """Motif-Video, whose null branch is combined by a guider."""
    return diffusers.MotifVideoPipeline(**_motif(diffusers))


def motif_i2v(diffusers: Any) -> Any:
    """The same with a picture as the first frame."""
    parts = _motif(diffusers, image_embed_dim=8)
    seeing = {"text_encoder": _sighted_encoder(parts["tokenizer"]), "feature_extractor": _sight()["feature_extractor"]}
    return diffusers.MotifVideoImage2VideoPipeline(**{**parts, **seeing})


def sana_wm(diffusers: Any) -> Any:
    """Sana's world model, which follows a camera."""
    tokenizer = _tokenizer()
    net = diffusers.SanaWMTransformer3DModel(
        in_channels=4, num_layers=2, hidden_size=32, num_attention_heads=2, softmax_every_n=2, linear_head_dim=16,
        chunk_plucker_post_attn_blocks=2, caption_channels=16, image_size=32,
    )  # fmt: skip
    return diffusers.SanaWMPipeline(
        tokenizer=tokenizer, text_encoder=_decoder_only("Gemma2", tokenizer), vae=_ltx2(diffusers)["vae"],
        transformer=loud(net), scheduler=flow(diffusers),
    )  # fmt: skip


def hunyuan_video_i2v(diffusers: Any) -> Any:
    """HunyuanVideo for a picture, which its language model sees."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    parts = hunyuan_video(diffusers).components
    tokenizer = parts["tokenizer"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<|end_header_id|>"]})
    reads = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    sees = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=8,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=sees, text_config=reads, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id, image_seq_length=4,
    )  # fmt: skip
    config.pad_token_id = tokenizer.pad_token_id
    given = {name: value for name, value in parts["transformer"].config.items() if not name.startswith("_")}
    kind = {"image_condition_type": "token_replace"}
    net = diffusers.HunyuanVideoTransformer3DModel(**{**given, **kind})
    return diffusers.HunyuanVideoImageToVideoPipeline(
        **{**parts, "transformer": loud(net), "text_encoder": LlavaForConditionalGeneration(config).eval()},
        image_processor=CLIPImageProcessorPil(crop_size=16, size=16),
    )  # fmt: skip


def kandinsky6(diffusers: Any) -> Any:
    """Kandinsky 6, whose denoiser can make a sound beside the frames."""
    parts = {**kandinsky5(diffusers).components, "vae": hunyuan_video(diffusers).vae}
    net = diffusers.Kandinsky6Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=32, time_dim=32, model_dim=16, ff_dim=16,
        num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 2, 2), visual_cond=False, in_audio_dim=4, out_audio_dim=4,
    )  # fmt: skip
    return diffusers.Kandinsky6TI2VAPipeline(**{**parts, "transformer": loud(net)}, audio_vae=None, vocoder=None)


_END = "<|end_header_id|>"
CAPTION = {
    "template": f"<image>s{_END}u{_END}{{}}abc{_END}", "crop_start": 6, "image_emb_len": 4, "image_emb_start": 1,
    "image_emb_end": 5,
}  # fmt: skip
LATEST_VIDEOS = (
    TinyPipeline("MotifVideoPipeline", motif, call={**FRAMES, "max_sequence_length": 16}),
    TinyPipeline(
        "MotifVideoImage2VideoPipeline", motif_i2v, call={**FRAMES, "max_sequence_length": 16, "image": SMALL}
    ),
    TinyPipeline(
        "SanaWMPipeline", sana_wm,
        call={
            "height": 32, "width": 32, "num_frames": 9, "image": PICTURE, "action": "w-8", "max_sequence_length": 16,
            "intrinsics": [20.0, 20.0, 16.0, 16.0],
        },
        refused="stride 1",
    ),
    TinyPipeline(
        "HunyuanVideoImageToVideoPipeline", hunyuan_video_i2v,
        call={**SIZE, "num_frames": 5, "image": SMALL, "prompt_template": CAPTION, "max_sequence_length": 32},
    ),
    TinyPipeline("Kandinsky6TI2VAPipeline", kandinsky6, call={**FRAMES, "sample_audio": False}),
)  # fmt: skip
"""Made from nothing."""
