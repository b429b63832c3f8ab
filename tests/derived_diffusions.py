"""Further classes made of the parts of Stable Diffusion 1, XL and 3, measured for docs/families.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .tiny_families import _clip, _vae
from .tiny_pipelines import (
    _PAG,
    HALF,
    MASKED,
    PICTURE,
    PICTURED,
    SIZE,
    SMALL,
    WHOLE,
    TinyPipeline,
    _changed_unet,
    loud,
)

CONTROLLED = {**SIZE, "control_image": SMALL}
UNION = {"control_image": [SMALL], "control_mode": [0]}


def _sixteen(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer and an autoencoder of the 16 channels that Stable Diffusion 3's inpainting takes for granted."""
    del diffusers
    config = {**parts["transformer"].config, "in_channels": 16, "out_channels": 16}
    vae = _vae(latent_channels=16, scaling_factor=1.5, shift_factor=0.06)
    return {"transformer": loud(type(parts["transformer"]).from_config(config)), "vae": vae.eval()}


def _masked_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    kind, options = diffusers.SD3ControlNetModel, {"num_layers": 1, "num_extra_conditioning_channels": 1}
    return {
        "controlnet": loud(kind.from_transformer(parts["transformer"], **options, load_weights_from_transformer=False))
    }


def _union(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    config = parts["unet"].config
    shared = (
        "in_channels", "down_block_types", "block_out_channels", "layers_per_block", "norm_num_groups",
        "cross_attention_dim", "attention_head_dim", "use_linear_projection", "addition_embed_type",
        "addition_time_embed_dim", "transformer_layers_per_block", "projection_class_embeddings_input_dim",
    )  # fmt: skip
    own = {"num_trans_channel": 4, "num_proj_channel": 4, "num_trans_head": 2}
    net = diffusers.ControlNetUnionModel(
        **{name: config[name] for name in shared}, **own, conditioning_embedding_out_channels=(4, 8)
    )
    return {"controlnet": loud(net)}


def _xs(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    unet = _changed_unet(parts, layers_per_block=2)
    adapter = diffusers.ControlNetXSAdapter.from_unet(unet, size_ratio=1.0, conditioning_embedding_out_channels=(4, 8))
    return {"controlnet": loud(adapter), "unet": unet}


def _eight_channels(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del diffusers
    return {"unet": _changed_unet(parts, in_channels=8)}


def _consistency(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"unet": _changed_unet(parts, time_cond_proj_dim=8), "scheduler": diffusers.LCMScheduler()}


def _gated(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del diffusers
    return {"unet": loud(_changed_unet(parts, attention_type="gated"))}


def _gated_by_pictures(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """What places pictures beside texts: a UNet that reads both, and CLIP's view of a picture."""
    from diffusers.pipelines.stable_diffusion import CLIPImageProjection
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=32, projection_dim=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16,
    )  # fmt: skip
    del diffusers
    return {
        "unet": loud(_changed_unet(parts, attention_type="gated-text-image")),
        "image_encoder": CLIPVisionModelWithProjection(vision).eval(), "image_project": CLIPImageProjection(32),
        "processor": CLIPImageProcessorPil(crop_size=32, size=32),
    }  # fmt: skip


def _upscaling(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    unet = _changed_unet(parts, in_channels=7, num_class_embeds=1000)
    return {"unet": unet, "low_res_scheduler": diffusers.DDPMScheduler()}


def _latent_upscaling(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    scheduler = diffusers.EulerDiscreteScheduler.from_config(parts["scheduler"].config)
    return {**_eight_channels(diffusers, parts), "scheduler": scheduler}


def _parallel(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"scheduler": diffusers.DDIMParallelScheduler.from_config(parts["scheduler"].config)}


def _roberta(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del diffusers
    from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
        RobertaSeriesConfig,
        RobertaSeriesModelWithTransformation,
    )

    config = RobertaSeriesConfig(
        vocab_size=len(parts["tokenizer"]), hidden_size=32, project_dim=32, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=100,
    )  # fmt: skip
    return {"text_encoder": RobertaSeriesModelWithTransformation(config).eval()}


def _unclip(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """What an image's embedding of 32 numbers needs beside the text."""
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=32, projection_dim=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16,
    )  # fmt: skip
    projection = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 64}
    return {
        "unet": _changed_unet(parts, **projection), "image_normalizer": StableUnCLIPImageNormalizer(32),
        "image_encoder": CLIPVisionModelWithProjection(vision).eval(),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    }  # fmt: skip


def _prior(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The same, and the model that makes it of the text."""
    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=32, num_embeddings=77
    )
    scheduler = diffusers.UnCLIPScheduler(
        variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
    )  # fmt: skip
    return {
        **_unclip(diffusers, parts), "prior": prior.eval(), "prior_scheduler": scheduler,
        "prior_tokenizer": parts["tokenizer"], "prior_text_encoder": _clip(parts["tokenizer"], projected=True),
    }  # fmt: skip


def _inverse(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"inverse_scheduler": diffusers.DDIMInverseScheduler.from_config(parts["scheduler"].config)}


def _case(name: str, family: str, parts: Any = None, refused: str = "", **call: Any) -> TinyPipeline:
    return TinyPipeline(name, family=family, parts=parts, call=call, refused=refused)


DIFFUSIONS = (
    _case("AltDiffusionPipeline", "sd", _roberta, **SIZE),
    _case("AltDiffusionImg2ImgPipeline", "sd", _roberta, image=SMALL, strength=0.6),
    _case("StableDiffusion3InpaintPipeline", "sd3", _sixteen, **MASKED, height=32, width=32, strength=1.0),
    _case(
        "StableDiffusion3ControlNetInpaintingPipeline", "sd3", _masked_controlnet, control_image=PICTURE,
        control_mask=HALF, height=32, width=32,
    ),
    _case("StableDiffusionXLControlNetUnionPipeline", "sdxl", _union, **SIZE, **UNION),
    _case("StableDiffusionXLControlNetUnionImg2ImgPipeline", "sdxl", _union, **PICTURED, **UNION, strength=0.6),
    _case(
        "StableDiffusionXLControlNetUnionInpaintPipeline", "sdxl", _union, image=SMALL, mask_image=WHOLE, **SIZE,
        **UNION, strength=1.0,
    ),
    _case("StableDiffusionControlNetXSPipeline", "sd", _xs, **PICTURED),
    _case("StableDiffusionXLControlNetXSPipeline", "sdxl", _xs, **PICTURED),
    _case("StableDiffusionXLInstructPix2PixPipeline", "sdxl", _eight_channels, _PAG, **PICTURED),
    TinyPipeline("LatentConsistencyModelPipeline", family="sd", parts=_consistency, call=SIZE, guidance="nag", steps=1),
    TinyPipeline(
        "LatentConsistencyModelImg2ImgPipeline", family="sd", parts=_consistency, guidance="nag", steps=1,
        call={"image": SMALL, "strength": 0.6},
    ),
    _case(
        "StableDiffusionGLIGENPipeline", "sd", _gated, **SIZE, gligen_phrases=["a cat"],
        gligen_boxes=[[0.1, 0.1, 0.9, 0.9]], gligen_scheduled_sampling_beta=1.0,
    ),
    _case(
        "StableDiffusionGLIGENTextImagePipeline", "sd", _gated_by_pictures, "4 branches", **SIZE,
        gligen_phrases=["a cat"],
        gligen_images=[PICTURE], gligen_boxes=[[0.1, 0.1, 0.9, 0.9]], gligen_scheduled_sampling_beta=1.0,
    ),
    _case(
        "StableDiffusionAttendAndExcitePipeline", "sd", refused="times per step", token_indices=[1],
        max_iter_to_alter=0, attn_res=(4, 4), **SIZE,
    ),
    _case(
        "StableDiffusionDiffEditPipeline", "sd", _inverse, "`image_latents` must have", mask_image=torch.ones(1, 8, 8),
        image_latents=torch.zeros(1, 1, 4, 8, 8),
    ),
    _case("StableUnCLIPPipeline", "sd", _prior, **SIZE, prior_num_inference_steps=2),
    _case("StableUnCLIPImg2ImgPipeline", "sd", _unclip, **SIZE, image_embeds=torch.ones(1, 32)),
    _case(
        "StableDiffusionPix2PixZeroPipeline", "sd", _inverse, "no attribute 'backward'", **SIZE,
        source_embeds=torch.zeros(1, 77, 32), target_embeds=torch.ones(1, 77, 32),
    ),
    _case("StableDiffusionParadigmsPipeline", "sd", _parallel, "does not reach scheduler.step", **SIZE),
    _case(
        "StableDiffusionUpscalePipeline", "sd", _upscaling, image=SMALL.resize((8, 8)),
        noise_level=20,
    ),
    _case(
        "StableDiffusionLatentUpscalePipeline", "sd", _latent_upscaling, "object is not callable",
        image=PICTURE.resize((64, 64)),
    ),
)  # fmt: skip
