"""Further classes, made of the parts of the tiny pipelines: measured for docs/families.md, not in the test suite."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from .tiny_pipelines import (
    _OTHER_TEXT,
    HALF,
    MASKED,
    PICTURE,
    PICTURED,
    SIZE,
    SMALL,
    WHOLE,
    TinyPipeline,
    _changed_unet,
    _control,
    _controlnet,
    _flux_controlnet,
    _motion,
    _nine_channels,
    loud,
)

LARGE = {"height": 32, "width": 32}
OFF = {"pag_scale": 0.0}
PART = {"image": SMALL, "strength": 0.6}
CONTROLLED = {**PICTURED, "control_image": SMALL}
MASKED_HALF = {"image": PICTURE, "mask_image": HALF, "height": 32, "width": 32}


def _controlled_half(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    unet = _nine_channels(diffusers, parts)["unet"]
    kind = diffusers.ControlNetModel
    return {"unet": unet, "controlnet": loud(kind.from_unet(parts["unet"], conditioning_embedding_out_channels=(4, 8)))}


def _depth(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del diffusers
    return {"unet": _changed_unet(parts, in_channels=5), "depth_estimator": None}


def _fill(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    config = {**parts["transformer"].config, "in_channels": 48, "out_channels": 16}
    return {"transformer": loud(diffusers.FluxTransformer2DModel.from_config(config))}


def _sana_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    net = diffusers.SanaControlNetModel.from_config({**parts["transformer"].config, "num_layers": 1})
    return {"controlnet": loud(net)}


def _z_controlnet(diffusers: Any, parts: Mapping[str, Any], channels: int = 4) -> dict[str, Any]:
    net = diffusers.ZImageControlNetModel(
        control_layers_places=[0], control_refiner_layers_places=[0], control_in_dim=channels, dim=32,
        n_refiner_layers=1, n_heads=2, n_kv_heads=2,
    )  # fmt: skip
    return {"controlnet": loud(net.from_transformer(net, parts["transformer"]))}


def _dit_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    config = parts["transformer"].config
    shared = (
        "in_channels", "patch_size", "sample_size", "hidden_size", "num_attention_heads", "attention_head_dim",
        "cross_attention_dim", "cross_attention_dim_t5", "pooled_projection_dim",
    )  # fmt: skip
    net = diffusers.HunyuanDiT2DControlNetModel(**{name: config[name] for name in shared}, transformer_num_layers=2)
    return {"controlnet": loud(net)}


def _masked_qwen_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    config = parts["transformer"].config
    accepted = inspect.signature(diffusers.QwenImageControlNetModel.__init__).parameters
    shared = {name: value for name, value in config.items() if name in accepted}
    net = diffusers.QwenImageControlNetModel(**{**shared, "num_layers": 1, "extra_condition_channels": 4})
    return {"controlnet": loud(net)}


def _unshifted(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    return {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}


def _case(name: str, family: str, parts: Any = None, **call: Any) -> TinyPipeline:
    return TinyPipeline(name, family=family, parts=parts, call=call)


def _refused(name: str, family: str, reason: str, parts: Any = None, **call: Any) -> TinyPipeline:
    return TinyPipeline(name, family=family, parts=parts, call=call, refused=reason)


def _distilled(name: str, family: str, parts: Any = None, **call: Any) -> TinyPipeline:
    return TinyPipeline(name, family=family, parts=parts, call=call, guidance="nag")


DERIVED = (
    _case("StableDiffusionPAGImg2ImgPipeline", "sd", **PART, **OFF),
    _case("StableDiffusionPAGInpaintPipeline", "sd", _nine_channels, **MASKED_HALF, **OFF),
    _case("StableDiffusionControlNetInpaintPipeline", "sd", _controlled_half, **MASKED_HALF, control_image=PICTURE),
    _case("StableDiffusionControlNetPAGPipeline", "sd", _controlnet, **PICTURED, **OFF),
    _case(
        "StableDiffusionControlNetPAGInpaintPipeline", "sd", _controlled_half, **MASKED_HALF, **OFF,
        control_image=PICTURE,
    ),
    _refused(
        "StableDiffusionDepth2ImgPipeline", "sd", "not every row is made", _depth, **PART,
        depth_map=torch.zeros(1, 16, 16),
    ),
    _case("StableDiffusionSAGPipeline", "sd", **SIZE, sag_scale=0.0),
    _refused("StableDiffusionLDM3DPipeline", "sd", "This type pt is not supported", **SIZE),
    _case("StableDiffusionModelEditingPipeline", "sd", **SIZE),
    _case("SemanticStableDiffusionPipeline", "sd", **SIZE),
    _refused("CycleDiffusionPipeline", "sd", "mixes the rows of a batch", **PART, source_prompt="a dog"),
    _case("AnimateDiffPAGPipeline", "sd", _motion, **SIZE, num_frames=2, **OFF),
    _case("StableDiffusionXLControlNetImg2ImgPipeline", "sdxl", _controlnet, **CONTROLLED, strength=0.6),
    _case("StableDiffusionXLControlNetInpaintPipeline", "sdxl", _controlled_half, **MASKED_HALF, control_image=PICTURE),
    _case("StableDiffusionXLControlNetPAGPipeline", "sdxl", _controlnet, **PICTURED, **OFF),
    _case("StableDiffusionXLControlNetPAGImg2ImgPipeline", "sdxl", _controlnet, **CONTROLLED, strength=0.6, **OFF),
    _case("StableDiffusionXLPAGImg2ImgPipeline", "sdxl", **PART, **OFF),
    _case("StableDiffusionXLPAGInpaintPipeline", "sdxl", _nine_channels, **MASKED_HALF, strength=0.99, **OFF),
    _case("StableDiffusion3PAGImg2ImgPipeline", "sd3", **PICTURED, strength=0.6, **OFF),
    _distilled("FluxControlPipeline", "flux", _control, control_image=SMALL),
    _distilled("FluxControlImg2ImgPipeline", "flux", _control, **CONTROLLED, strength=0.6),
    _distilled(
        "FluxControlInpaintPipeline", "flux", _control, **MASKED, control_image=PICTURE, height=32, width=32,
        strength=1.0,
    ),
    _distilled("FluxFillPipeline", "flux", _fill, **MASKED),
    _distilled("FluxControlNetImg2ImgPipeline", "flux", _flux_controlnet, **CONTROLLED, strength=0.6),
    _distilled(
        "FluxControlNetInpaintPipeline", "flux", _flux_controlnet, **MASKED, control_image=PICTURE, strength=1.0,
    ),
    _case("FluxKontextInpaintPipeline", "flux", **MASKED, **LARGE, strength=1.0, max_area=1024, _auto_resize=False),
    _case("SanaControlNetPipeline", "sana", _sana_controlnet, control_image=PICTURE),
    _refused("LTXConditionPipeline", "ltx", "steers its scheduler's steps by per_token_timesteps", _unshifted),
    _case("ChromaImg2ImgPipeline", "ChromaPipeline", **PART),
    _refused("ChromaInpaintPipeline", "ChromaPipeline", "no attribute 'guidance_embeds'", **MASKED, strength=1.0),
    _case("ZImageImg2ImgPipeline", "ZImagePipeline", **PART),
    _case("ZImageInpaintPipeline", "ZImagePipeline", image=SMALL, mask_image=WHOLE, strength=1.0),
    _case("ZImageControlNetPipeline", "ZImagePipeline", _z_controlnet, control_image=SMALL),
    _case(
        "ZImageControlNetInpaintPipeline", "ZImagePipeline", partial(_z_controlnet, channels=9), image=SMALL,
        mask_image=WHOLE, control_image=SMALL,
    ),
    _refused(
        "QwenImageControlNetInpaintPipeline", "qwen", _OTHER_TEXT, _masked_qwen_controlnet, control_image=PICTURE,
        control_mask=WHOLE, **LARGE,
    ),
    _case(
        "HunyuanDiTControlNetPipeline", "HunyuanDiTPipeline", _dit_controlnet,
        control_image=PICTURE.resize((64, 64)),
    ),
    _case("HunyuanDiTPAGPipeline", "HunyuanDiTPipeline", **OFF),
    _case("CogVideoXVideoToVideoPipeline", "CogVideoXPipeline", video=[SMALL] * 9, strength=0.6),
    _case("Flux2KleinInpaintPipeline", "Flux2KleinPipeline", **MASKED, **LARGE, strength=1.0),
    _distilled("Flux2KleinKVPipeline", "Flux2KleinPipeline"),
)  # fmt: skip
