"""Tiny pipelines of further classes, beside the families of the contract suite (`tiny_families`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from .tiny_builders import (
    allegro,
    bria,
    chroma,
    cogvideox,
    cogview3,
    flux2,
    hidream,
    hunyuan_video,
    hunyuandit,
    kandinsky5,
    klein,
    latte,
    loud,
    lumina2,
    mochi,
    z_image,
)
from .tiny_families import FAMILIES, _listen

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
SMALL = PICTURE.resize((16, 16))
WHOLE = Image.new("L", (32, 32), 255)
HALF = Image.new("L", (32, 32), 255)
HALF.paste(0, (0, 0, 16, 32))


def _changed_unet(parts: Mapping[str, Any], **config: Any) -> Any:
    torch.manual_seed(0)
    unet = type(parts["unet"]).from_config({**parts["unet"].config, **config})
    return _listen(unet, "attn2.to_v", "attn2.to_out", by=10)


def _nine_channels(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del diffusers
    return {"unet": _changed_unet(parts, in_channels=9)}


def _eight_channels(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del diffusers
    return {"unet": _changed_unet(parts, in_channels=8)}


def _controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    kind = diffusers.ControlNetModel
    return {"controlnet": loud(kind.from_unet(parts["unet"], conditioning_embedding_out_channels=(4, 8)))}


def _sd3_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    kind, options = diffusers.SD3ControlNetModel, {"num_layers": 1, "num_extra_conditioning_channels": 0}
    return {"controlnet": loud(kind.from_transformer(parts["transformer"], **options))}


def _flux_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
    return {"controlnet": loud(diffusers.FluxControlNetModel.from_transformer(parts["transformer"], **sizes))}


def _qwen_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    kind = diffusers.QwenImageControlNetModel
    accepted = inspect.signature(kind.__init__).parameters
    config = {name: value for name, value in parts["transformer"].config.items() if name in accepted}
    return {"controlnet": loud(kind(**{**config, "num_layers": 1}))}


def _control(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer that takes a picture's latents beside its own."""
    del diffusers
    config = parts["transformer"].config
    wide = {**config, "in_channels": 2 * config["in_channels"], "out_channels": config["in_channels"]}
    return {"transformer": loud(type(parts["transformer"]).from_config(wide))}


def _adapter(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """T2I-Adapter, and a UNet whose first block is the one with attention, as those it was made for have it."""
    config = parts["unet"].config
    turned = {name: config[name][::-1] for name in ("down_block_types", "up_block_types")}
    turned |= {name: config[name][::-1] for name in ("attention_head_dim",) if isinstance(config[name], list | tuple)}
    options = {"in_channels": 3, "channels": [4, 8], "num_res_blocks": 1, "downscale_factor": 2}
    return {"adapter": loud(diffusers.T2IAdapter(**options)), "unet": _changed_unet(parts, **turned)}


def _motion(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    adapter = diffusers.MotionAdapter(
        block_out_channels=(4, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2,
        use_motion_mid_block=False,
    )  # fmt: skip
    return {"motion_adapter": loud(adapter)}


Parts = Callable[[Any, Mapping[str, Any]], dict[str, Any]]
ABSENT = {"safety_checker", "feature_extractor", "image_encoder", "caption_generator", "caption_processor"}
"""Parts that stay None where a case does not make them."""


@dataclass(frozen=True)
class TinyPipeline:
    """A tiny pipeline of one class, with random weights, and how it is called.

    Attributes:
        name: the class.
        build: makes it from nothing; None if it is made of the parts of a family.
        family: whose parts it is made of: a family, or another of these classes.
        parts: makes the parts that it has beside them.
        call: arguments of its call beside those of the family.
        attributes: of the pipeline, set before it is called.
        refused: what the refusal says; empty if it is accepted.
        guidance: "nag" where its call has no null branch.
        steps: how many the measurements take; 1 where its scheduler's steps draw noise.
    """

    name: str
    build: Callable[[Any], Any] | None = None
    family: str = ""
    parts: Parts | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    guidance: Literal["cfg", "nag"] = "cfg"
    steps: int = 3

    def __str__(self) -> str:
        return self.name

    def load(self, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Return the pipeline, loaded from a checkpoint in the folder, and its call's arguments."""
        import diffusers

        call = dict(self.call)
        torch.manual_seed(0)
        if self.build is not None:
            built = self.build(diffusers)
            built.save_pretrained(folder / self.name)
            given = {name: part for name, part in built.components.items() if not hasattr(part, "save_pretrained")}
            pipeline = diffusers.DiffusionPipeline.from_pretrained(folder / self.name, **given, **options)
        else:
            base, shared = self._base(folder, **options)
            pipeline = self._composed(diffusers, base, **options)
            accepted = inspect.signature(type(pipeline).__call__).parameters
            call = {key: value for key, value in shared.items() if key in accepted} | call
        for name, value in self.attributes.items():
            setattr(pipeline, name, value)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline, call

    def _base(self, folder: Path, **options: Any) -> tuple[Any, Mapping[str, Any]]:
        """The pipeline whose parts this one is made of, and its call's arguments."""
        import diffusers

        if self.family not in FAMILIES:
            return next(case for case in PIPELINES if case.name == self.family).load(folder, **options)
        if not (folder / self.family).exists():
            FAMILIES[self.family].save(folder / self.family)
        return diffusers.DiffusionPipeline.from_pretrained(folder / self.family, **options), FAMILIES[self.family].call

    def _composed(self, diffusers: Any, base: Any, **options: Any) -> Any:
        kind, parts = getattr(diffusers, self.name), dict(base.components)
        torch.manual_seed(0)
        more = self.parts(diffusers, parts) if self.parts is not None else {}
        dtype = options.get("dtype", torch.float32)
        parts |= {name: part.to(dtype) if isinstance(part, torch.nn.Module) else part for name, part in more.items()}
        wanted = [each for each in inspect.signature(kind.__init__).parameters if each != "self"]
        given = {each: parts[each] for each in wanted if each in parts}
        absent = ABSENT & set(wanted) - set(given)
        given |= dict.fromkeys(absent)
        return kind(**given, **({"requires_safety_checker": False} if "requires_safety_checker" in wanted else {}))


SIZE: dict[str, Any] = {"height": 16, "width": 16}
MASKED: dict[str, Any] = {"image": PICTURE, "mask_image": WHOLE}
PICTURED: dict[str, Any] = {"image": SMALL, **SIZE}
_PAG = "3 branches where two were expected"
_OTHER_TEXT = "controlnet reads another text than its denoiser does"

PIPELINES: tuple[TinyPipeline, ...] = (
    TinyPipeline("CogView3PlusPipeline", cogview3, call=SIZE),
    TinyPipeline(
        "HunyuanDiTPipeline", hunyuandit, call={"height": 64, "width": 64, "use_resolution_binning": False}
    ),
    TinyPipeline("Lumina2Pipeline", lumina2, call=SIZE),
    TinyPipeline("ChromaPipeline", chroma, call=SIZE),
    TinyPipeline("ZImagePipeline", z_image, call=SIZE),
    TinyPipeline(
        "HiDreamImagePipeline", hidream, call={**SIZE, "max_sequence_length": 77},
        attributes={"default_sample_size": 8},  # every size is scaled to the area of this one
    ),
    TinyPipeline(
        "Kandinsky5T2IPipeline", kandinsky5, call={"height": 64, "width": 64}, attributes={"resolutions": [(64, 64)]}
    ),
    TinyPipeline("BriaPipeline", bria, call=SIZE),
    TinyPipeline("Flux2KleinPipeline", klein, call={**SIZE, "text_encoder_out_layers": (1, 2, 3)}),
    TinyPipeline("Flux2Pipeline", flux2, call={**SIZE, "text_encoder_out_layers": (1, 2, 3)}, guidance="nag"),
    TinyPipeline("CogVideoXPipeline", cogvideox, call={**SIZE, "num_frames": 9, "max_sequence_length": 16}),
    TinyPipeline("MochiPipeline", mochi, call={**SIZE, "num_frames": 7, "max_sequence_length": 16}),
    TinyPipeline(
        "HunyuanVideoPipeline", hunyuan_video,
        call={
            **SIZE, "num_frames": 5, "prompt_template": {"template": "{}", "crop_start": 0}, "max_sequence_length": 16
        },
    ),
    TinyPipeline("LattePipeline", latte, call={**SIZE, "video_length": 1, "mask_feature": False}),
    TinyPipeline("AllegroPipeline", allegro, call={**SIZE, "num_frames": 8}, refused="Decoding without tiling"),
    TinyPipeline("PixArtAlphaPipeline", family="pixart"),
    TinyPipeline("StableDiffusionImg2ImgPipeline", family="sd", call={"image": SMALL, "strength": 0.6}),
    TinyPipeline("StableDiffusionXLImg2ImgPipeline", family="sdxl", call={"image": SMALL, "strength": 0.6}),
    TinyPipeline("KolorsImg2ImgPipeline", family="kolors", call={**PICTURED, "strength": 0.6}),
    TinyPipeline("StableDiffusion3Img2ImgPipeline", family="sd3", call={**PICTURED, "strength": 0.6}),
    TinyPipeline("FluxImg2ImgPipeline", family="flux", call={**PICTURED, "strength": 0.6}),
    TinyPipeline("QwenImageImg2ImgPipeline", family="qwen", call={"image": PICTURE, "strength": 0.6}),
    TinyPipeline(
        "FluxKontextPipeline", family="flux",
        call={**SIZE, "image": PICTURE, "max_area": 256, "_auto_resize": False},  # a picture of another size
    ),
    TinyPipeline(
        "StableDiffusionInpaintPipeline", family="sd", parts=_nine_channels,
        call={**MASKED, "mask_image": HALF, "height": 32, "width": 32},
    ),
    TinyPipeline(
        "StableDiffusionXLInpaintPipeline", family="sdxl", parts=_nine_channels,
        call={**MASKED, "mask_image": HALF, "height": 32, "width": 32, "strength": 0.99},
    ),
    TinyPipeline("FluxInpaintPipeline", family="flux", call={**MASKED, "strength": 1.0}),
    TinyPipeline("QwenImageInpaintPipeline", family="qwen", call={**MASKED, "strength": 1.0}),
    TinyPipeline("StableDiffusionControlNetPipeline", family="sd", parts=_controlnet, call=PICTURED),
    TinyPipeline("StableDiffusionXLControlNetPipeline", family="sdxl", parts=_controlnet, call=PICTURED),
    TinyPipeline(
        "StableDiffusionControlNetImg2ImgPipeline", family="sd", parts=_controlnet,
        call={**PICTURED, "control_image": SMALL, "strength": 0.6},
    ),
    TinyPipeline(
        "StableDiffusion3ControlNetPipeline", family="sd3", parts=_sd3_controlnet,
        call={**SIZE, "control_image": SMALL},
    ),
    TinyPipeline(
        "FluxControlNetPipeline", family="flux", parts=_flux_controlnet, call={"control_image": SMALL},
        refused=_OTHER_TEXT,
    ),
    TinyPipeline(
        "QwenImageControlNetPipeline", family="qwen", parts=_qwen_controlnet, call={"control_image": PICTURE},
        refused=_OTHER_TEXT,
    ),
    TinyPipeline(  # the noise with which it encodes the control picture has the size of its latents
        "CogView4ControlPipeline", family="cogview4", parts=_control, call={**SIZE, "control_image": SMALL}
    ),
    TinyPipeline("StableDiffusionXLAdapterPipeline", family="sdxl", parts=_adapter, call=PICTURED),
    TinyPipeline(
        "StableDiffusionAdapterPipeline", family="sd", parts=_adapter, call=PICTURED,
        refused="returns a ndarray where output_type='pt' means a tensor",
    ),
    TinyPipeline("StableDiffusionPAGPipeline", family="sd", call={"pag_scale": 0.0}),
    TinyPipeline("StableDiffusionXLPAGPipeline", family="sdxl", call={"pag_scale": 0.0}),
    TinyPipeline("KolorsPAGPipeline", family="kolors", call={"pag_scale": 0.0}),
    TinyPipeline("StableDiffusion3PAGPipeline", family="sd3", call={"pag_scale": 0.0}),
    TinyPipeline("PixArtSigmaPAGPipeline", family="pixart", call={"pag_scale": 0.0}),
    TinyPipeline("SanaPAGPipeline", family="sana", call={"pag_scale": 0.0}),
    TinyPipeline(
        "StableDiffusionInstructPix2PixPipeline", family="sd", parts=_eight_channels, call={"image": SMALL},
        refused=_PAG,
    ),
    TinyPipeline("StableDiffusionPanoramaPipeline", family="sd", call=SIZE, refused="changes them in place"),
    TinyPipeline("LTXImageToVideoPipeline", family="ltx", call={"image": PICTURE}),
    TinyPipeline("AnimateDiffPipeline", family="sd", parts=_motion, call={**SIZE, "num_frames": 2}),
)  # fmt: skip
ACCEPTED = tuple(each for each in PIPELINES if not each.refused)
REFUSED = tuple(each for each in PIPELINES if each.refused)
FAMILY_PIPELINES = tuple(
    TinyPipeline(name, family=family)
    for name, family in {
        "StableDiffusionPipeline": "sd", "StableDiffusionXLPipeline": "sdxl", "KolorsPipeline": "kolors",
        "StableDiffusion3Pipeline": "sd3", "PixArtSigmaPipeline": "pixart", "SanaPipeline": "sana",
        "FluxPipeline": "flux", "QwenImagePipeline": "qwen", "AuraFlowPipeline": "auraflow",
        "CogView4Pipeline": "cogview4", "WanPipeline": "wan", "LTXPipeline": "ltx",
    }.items()
)  # fmt: skip
"""The classes of the families, which the contract suite tests."""


def comparable(pipeline: Any) -> None:
    """Let the pipeline's own steps be of first order and without noise, as ours are at η = 0."""
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    if isinstance(pipeline.scheduler, DDPMScheduler):
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    if isinstance(pipeline.scheduler, DPMSolverMultistepScheduler):
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, solver_order=1)
