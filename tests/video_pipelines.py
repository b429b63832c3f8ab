"""Tiny video pipelines of further classes: measured for docs/families.md, and a few of them in the test suite."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from .derived_pipelines import _case, _refused, _unshifted
from .tiny_builders import hunyuan_video
from .tiny_families import _listen
from .tiny_pipelines import (
    PICTURE,
    SIZE,
    SMALL,
    TinyPipeline,
    loud,
)
from .video_unets import CLIP, UNETS, _seeing

FRAMES: dict[str, Any] = {**SIZE, "num_frames": 5}


def _wan(diffusers: Any, kind: str = "WanTransformer3DModel", **changes: Any) -> Any:
    """A transformer of Wan's kind."""
    config = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4,
        "out_channels": 4, "text_dim": 32, "freq_dim": 64, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
        **changes,
    }  # fmt: skip
    net = getattr(diffusers, kind)(**config)
    return _listen(net, "text_embedder", "attn2.to_out", "proj_out", by=2)


def _wan_vae(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=16, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.0, -0.1, 0.2], latents_std=[1.0, 1.5, 0.8, 1.2],
    )  # fmt: skip


def _wan_i2v(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Wan 2.1: the picture's latents and their mask beside the video's, and CLIP's view of it."""
    del parts
    return {**_seeing(), "transformer": _wan(diffusers, in_channels=12, image_dim=8)}


def _wan_vace(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {"transformer": loud(_wan(diffusers, "WanVACETransformer3DModel", vace_layers=[0], vace_in_channels=8 + 64))}


def _wan_animate(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    net = _wan(
        diffusers, "WanAnimateTransformer3DModel", in_channels=12, latent_channels=4, image_dim=8,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8}, motion_encoder_size=16, motion_style_dim=8,
        motion_dim=4, motion_encoder_dim=16, face_encoder_hidden_dim=16, face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    )  # fmt: skip
    return {**_seeing(), "transformer": loud(net)}


def _skyreels(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {"transformer": _wan(diffusers, "SkyReelsV2Transformer3DModel")}


def _forcing(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of diffusion forcing, whose scheduler is copied for each frame."""
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
    )  # fmt: skip
    return {**_skyreels(diffusers, parts), "scheduler": scheduler}


def _skyreels_i2v(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    net = _wan(diffusers, "SkyReelsV2Transformer3DModel", in_channels=12, image_dim=8)
    return {**_seeing(), "transformer": net}


def _chrono(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {**_seeing(), "transformer": _wan(diffusers, "ChronoEditTransformer3DModel", in_channels=12, image_dim=8)}


def _lucy(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {"transformer": _wan(diffusers, in_channels=8)}


def _anyflow(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {
        "transformer": _wan(diffusers, "AnyFlowTransformer3DModel"),
        "scheduler": diffusers.FlowMapEulerDiscreteScheduler(),
    }


def _anyflow_far(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {
        "transformer": _wan(diffusers, "AnyFlowFARTransformer3DModel"),
        "scheduler": diffusers.FlowMapEulerDiscreteScheduler(),
    }


def _helios(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {
        "transformer": loud(
            diffusers.HeliosTransformer3DModel(
                patch_size=(1, 2, 2),
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=4,
                out_channels=4,
                text_dim=32,
                freq_dim=64,
                ffn_dim=32,
                num_layers=2,
                rope_dim=(4, 4, 4),
            )
        ),
        "scheduler": diffusers.HeliosScheduler(stage_range=[0, 1], stages=1, use_dynamic_shifting=True),
    }


_COPIES = "does not reach scheduler.step"
WAN = (
    _case("WanImageToVideoPipeline", "wan", _wan_i2v, **FRAMES, image=SMALL),
    _case("WanVideoToVideoPipeline", "wan", **SIZE, video=CLIP, strength=0.6),
    _case("WanVACEPipeline", "wan", _wan_vace, **FRAMES, reference_images=[SMALL]),
    _case(
        "WanAnimatePipeline", "wan", _wan_animate, **SIZE, image=SMALL, pose_video=CLIP, face_video=CLIP,
        segment_frame_length=5,
    ),
    _case("SkyReelsV2Pipeline", "wan", _skyreels, **FRAMES),
    _case("SkyReelsV2ImageToVideoPipeline", "wan", _skyreels_i2v, **FRAMES, image=SMALL),
    _refused("SkyReelsV2DiffusionForcingPipeline", "wan", _COPIES, _forcing, **FRAMES, base_num_frames=5),
    _refused(
        "SkyReelsV2DiffusionForcingImageToVideoPipeline", "wan", _COPIES, _forcing, **FRAMES, base_num_frames=5,
        image=SMALL,
    ),
    _refused(
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline", "wan", _COPIES, _forcing, **SIZE, num_frames=9,
        base_num_frames=9, overlap_history=5, video=CLIP,
    ),
    _case("ChronoEditPipeline", "wan", _chrono, **FRAMES, image=SMALL),
    _case("LucyEditPipeline", "wan", _lucy, **FRAMES, video=CLIP),
    _case("AnyFlowPipeline", "wan", _anyflow, **FRAMES),
    _refused("AnyFlowFARPipeline", "wan", "more often at some steps", _anyflow_far, **FRAMES, chunk_partition=[1, 1]),
    _refused("HeliosPipeline", "wan", "does not say its noise levels", _helios, **SIZE, num_frames=33),
)  # fmt: skip
"""Made of Wan's parts."""


def _cogvideox(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """CogVideoX with the latents of a picture, or of a control video, beside its own."""
    net = diffusers.CogVideoXTransformer3DModel.from_config({**parts["transformer"].config, "in_channels": 8})
    return {"transformer": _listen(net, "patch_embed.text_proj", by=3)}


def _consisid(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    kind = diffusers.ConsisIDTransformer3DModel
    names = inspect.signature(kind.__init__).parameters
    config = {name: value for name, value in parts["transformer"].config.items() if name in names}
    net = kind(**{**config, "in_channels": 8})
    return {"transformer": _listen(net, "patch_embed.text_proj", by=3)}


COGVIDEOX = (
    _case("CogVideoXImageToVideoPipeline", "CogVideoXPipeline", _cogvideox, image=SMALL),
    _case("CogVideoXFunControlPipeline", "CogVideoXPipeline", _cogvideox, control_video=[SMALL] * 9),
    _case("ConsisIDPipeline", "CogVideoXPipeline", _consisid, image=SMALL),
)
"""Made of CogVideoX's parts."""


def _skyreels_hunyuan(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    net = diffusers.HunyuanVideoTransformer3DModel.from_config({**parts["transformer"].config, "in_channels": 8})
    return {"transformer": net}


def _sight(length: int = 8) -> dict[str, Any]:
    """SigLIP's image encoder, and what prepares pictures for it."""
    from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=length, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16,
        patch_size=8,
    )  # fmt: skip
    prepare = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    return {"image_encoder": SiglipVisionModel(config).eval(), "feature_extractor": prepare}


def _framepack(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    net = diffusers.HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=2, text_embed_dim=16, pooled_projection_dim=32, rope_axes_dim=(2, 4, 4),
        has_image_proj=True, image_proj_dim=8, has_clean_x_embedder=True,
    )  # fmt: skip
    return {**_sight(), "transformer": net}


def _kandinsky(diffusers: Any, parts: Mapping[str, Any], visual_cond: bool = True) -> dict[str, Any]:
    torch.manual_seed(0)
    config = {**parts["transformer"].config, "visual_cond": visual_cond}
    net = diffusers.Kandinsky5Transformer3DModel.from_config(config)
    vae = hunyuan_video(diffusers).vae
    return {"transformer": loud(net), "vae": vae}


def _sana_video(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    net = diffusers.SanaVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=8,
        sample_size=8, rope_max_seq_len=32,
    )  # fmt: skip
    return {"transformer": _listen(net, "attn2.to_v", "attn2.to_out", "proj_out", by=5), "vae": _wan_vae(diffusers)}


def _sana_i2v(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return {**_sana_video(diffusers, parts), "scheduler": scheduler}


_SANA = {"frames": 5, "complex_human_instruction": None, "max_sequence_length": 16}
FURTHER = (
    _case("HunyuanSkyreelsImageToVideoPipeline", "HunyuanVideoPipeline", _skyreels_hunyuan, image=SMALL),
    _refused(
        "HunyuanVideoFramepackPipeline",
        "HunyuanVideoPipeline",
        "more than one piece",
        _framepack,
        image=SMALL,
        latent_window_size=2,
        num_frames=9,
    ),
    _case("Kandinsky5T2VPipeline", "Kandinsky5T2IPipeline", _kandinsky, **FRAMES),
    _refused(
        "Kandinsky5I2VPipeline", "Kandinsky5T2IPipeline", "changes them in place", _kandinsky, **FRAMES, image=SMALL
    ),
    _case("SanaVideoPipeline", "sana", _sana_video, **_SANA),
    _case("SanaImageToVideoPipeline", "sana", _sana_i2v, **_SANA, image=PICTURE),
    _refused("LTXI2VLongMultiPromptPipeline", "ltx", "a row does not depend", _unshifted, cond_image=PICTURE),
)
"""Made of the parts of other classes."""

VIDEOS: tuple[TinyPipeline, ...] = (*WAN, *UNETS, *COGVIDEOX, *FURTHER)
