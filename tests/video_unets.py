"""Tiny video pipelines made of the parts of Stable Diffusion and SDXL: measured for docs/families.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import ImageOps

from .derived_pipelines import _case, _refused
from .tiny_families import _listen
from .tiny_pipelines import SIZE, SMALL, _controlnet, _motion, loud

CLIP = [SMALL] * 5
"""A video."""
FRAMES = [SMALL, ImageOps.invert(SMALL)]
"""A video whose frames differ."""


def _seeing(**changes: Any) -> dict[str, Any]:
    """CLIP's image encoder, as Wan's image-to-video checkpoints have it, and what prepares pictures for it."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = {
        "hidden_size": 8, "projection_dim": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "intermediate_size": 16, "patch_size": 16, **changes,
    }  # fmt: skip
    prepare = CLIPImageProcessorPil(crop_size=32, size=32)
    return {
        "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval(),
        "image_processor": prepare,
    }


def _animated(*further: Any) -> Any:
    """A motion adapter, and further parts."""

    def parts(diffusers: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
        made = _motion(diffusers, shared)
        for part in further:
            made |= part(diffusers, shared)
        return made

    return parts


def _sparse_control(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    net = diffusers.SparseControlNetModel(
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, cross_attention_dim=32,
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"), attention_head_dim=2,
        motion_num_attention_heads=2, conditioning_embedding_out_channels=(4, 8),
    )  # fmt: skip
    return {"controlnet": loud(net)}


def _pia(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    adapter = diffusers.MotionAdapter(
        block_out_channels=(4, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2,
        use_motion_mid_block=False, conv_in_channels=9,
    )  # fmt: skip
    return {"motion_adapter": loud(adapter)}


_UNET_3D = {
    "sample_size": 8, "block_out_channels": (4, 8), "norm_num_groups": 2, "cross_attention_dim": 32,
    "attention_head_dim": 4, "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}  # fmt: skip


def _unet_3d(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {"unet": _listen(diffusers.UNet3DConditionModel(**_UNET_3D), "attn2.to_v", "attn2.to_out", by=10)}


def _i2vgen(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    seeing = _seeing(projection_dim=32)
    unet = _listen(diffusers.I2VGenXLUNet(**_UNET_3D), "attn2.to_v", "attn2.to_out", by=10)
    return {"unet": unet, "image_encoder": seeing["image_encoder"], "feature_extractor": seeing["image_processor"]}


TWO = {**SIZE, "num_frames": 2}
UNETS = (
    _case("AnimateDiffSDXLPipeline", "sdxl", _motion, **TWO),
    _case("AnimateDiffControlNetPipeline", "sd", _animated(_controlnet), **TWO, conditioning_frames=FRAMES),
    _case("AnimateDiffSparseControlNetPipeline", "sd", _animated(_sparse_control), **TWO, conditioning_frames=CLIP[:1]),
    _case("AnimateDiffVideoToVideoPipeline", "sd", _motion, **SIZE, video=CLIP[:2], strength=0.6),
    _case(
        "AnimateDiffVideoToVideoControlNetPipeline", "sd", _animated(_controlnet), **SIZE,
        video=CLIP[:2], strength=0.6, conditioning_frames=FRAMES,
    ),
    _case("PIAPipeline", "sd", _pia, **TWO, image=SMALL),
    _case("TextToVideoSDPipeline", "sd", _unet_3d, **TWO),
    _refused("VideoToVideoSDPipeline", "sd", "made of noise in a way", _unet_3d, video=CLIP[:2], strength=0.6),
    _refused("I2VGenXLPipeline", "sd", "no attribute 'text_model'", _i2vgen, **TWO, image=SMALL, decode_chunk_size=8),
    _refused("TextToVideoZeroPipeline", "sd", "out of bounds", **SIZE, video_length=2, t0=1, t1=2),
    _refused("TextToVideoZeroSDXLPipeline", "sdxl", "out of bounds", **SIZE, video_length=2, t0=1, t1=2),
)  # fmt: skip
"""Made of the parts of Stable Diffusion and SDXL."""
