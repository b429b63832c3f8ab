"""Tiny pipelines that change a picture by a text, which most of them read together with the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .derived_diffusions import _case
from .tiny_builders import _eightfold, _listen, loud, z_image
from .tiny_families import _vae
from .tiny_images import bria_fibo, flow, longcat, qwen_vae
from .tiny_pipelines import PICTURE, SIZE, WHOLE, TinyPipeline
from .tiny_vision import VisionProcessor, qwen3_vl, qwen25_vl, qwen_tokenizer

COARSE = {
    "patch_size": 16, "in_channels": 3 * 16**2, "out_channels": 3 * 16**2, "dim_mult": [1, 1, 1],
    "temperal_downsample": [False] * 6,  # from whose length some pipelines conclude its factor, 64
}  # fmt: skip
"""Of an autoencoder that makes few latents of the large pictures that some calls encode."""


def _seeing(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """A language model that sees the picture."""
    del diffusers, parts
    tokenizer = qwen_tokenizer()
    return {"text_encoder": qwen25_vl(tokenizer), "tokenizer": tokenizer, "processor": VisionProcessor(tokenizer)}


def _picture_beside(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer that takes a picture's latents beside its own, and what reads the picture with the text."""
    seeing = _seeing(diffusers, parts)
    net = type(parts["transformer"]).from_config({**parts["transformer"].config, "visual_cond": True})
    return {
        "transformer": loud(net),
        "vae": _eightfold().eval(),
        "text_encoder": seeing["text_encoder"],
        "tokenizer": seeing["processor"],
    }


def _seeing_from_afar(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The same, and an autoencoder that makes few latents of the large pictures that these calls encode."""
    return {**_seeing(diffusers, parts), "vae": qwen_vae(diffusers, "AutoencoderKLWan", **COARSE).eval()}


def _layered(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer that is told which of the pictures' layers are given, and an autoencoder of colours and opacity."""
    torch.manual_seed(0)
    config = {**parts["transformer"].config, "use_additional_t_cond": True, "use_layer3d_rope": True}
    config |= {"in_channels": 32, "out_channels": 8}  # a picture of four channels counts as latents of four
    net = _listen(diffusers.QwenImageTransformer2DModel.from_config(config), "img_mod", "attn.to_out", by=8)
    coarse = {**COARSE, "in_channels": 4 * 16**2, "out_channels": 4 * 16**2, "z_dim": 8}
    coarse |= {"latents_mean": [0.0] * 8, "latents_std": [1.0] * 8}
    vae = qwen_vae(diffusers, "AutoencoderKLWan", **coarse)
    return {**_seeing(diffusers, parts), "transformer": net, "vae": vae.eval()}


def longcat_edit(diffusers: Any) -> Any:
    """LongCat for a picture, with an autoencoder that makes few latents of it: every picture is scaled to 1024²."""
    parts = {name: part for name, part in longcat(diffusers).components.items() if name != "vae"}
    tokenizer = qwen_tokenizer()
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 8, "up_block_types": ("UpDecoderBlock2D",) * 8}
    vae = _vae(**blocks, block_out_channels=(2,) * 8, latent_channels=16, scaling_factor=0.36, shift_factor=0.1)
    parts |= {"vae": vae, "text_encoder": qwen25_vl(tokenizer), "tokenizer": tokenizer}
    return diffusers.LongCatImageEditPipeline(**{**parts, "text_processor": VisionProcessor(tokenizer)})


def fibo_edit(diffusers: Any) -> Any:
    """FIBO for a picture."""
    return diffusers.BriaFiboEditPipeline(**bria_fibo(diffusers).components)


def _joy(diffusers: Any, kind: str) -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    net = getattr(diffusers, kind)(
        in_channels=4, hidden_size=32, num_attention_heads=2, text_dim=16, num_layers=1, rope_dim_list=[4, 6, 6],
    )  # fmt: skip
    vae = qwen_vae(diffusers, "AutoencoderKLWan", **COARSE, scale_factor_spatial=64)
    return {
        "scheduler": flow(diffusers, shift=4.0), "vae": vae.eval(), "text_encoder": qwen3_vl(tokenizer),
        "tokenizer": tokenizer, "transformer": loud(net), "processor": VisionProcessor(tokenizer),
    }  # fmt: skip


def joy_edit(diffusers: Any) -> Any:
    """JoyImage for a picture, which it scales to about 1024²."""
    return diffusers.JoyImageEditPipeline(**_joy(diffusers, "JoyImageEditTransformer3DModel"))


def joy_edit_plus(diffusers: Any) -> Any:
    """The same for several pictures."""
    return diffusers.JoyImageEditPlusPipeline(**_joy(diffusers, "JoyImageEditPlusTransformer3DModel"))


def z_image_omni(diffusers: Any) -> Any:
    """Z-Image that sees pictures beside the text."""
    from transformers import Siglip2ImageProcessorPil, Siglip2VisionConfig, Siglip2VisionModel

    parts = z_image(diffusers).components
    config = {name: value for name, value in parts["transformer"].config.items() if not name.startswith("_")}
    vision = Siglip2VisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=8, num_patches=4
    )  # fmt: skip
    net = diffusers.ZImageTransformer2DModel(**{**config, "siglip_feat_dim": 8})
    net = _listen(net, "cap_embedder", "to_v", "to_out", by=3)
    return diffusers.ZImageOmniPipeline(
        **{**parts, "transformer": loud(net)}, siglip=Siglip2VisionModel(vision).eval(),
        siglip_processor=Siglip2ImageProcessorPil(patch_size=8, max_num_patches=4),
    )  # fmt: skip


LARGE = {"height": 256, "width": 256}
_UNKNOWN = "combined in a way that is not known"
EDITS = (
    _case("QwenImageEditPipeline", "qwen", _seeing_from_afar, **LARGE, image=PICTURE),
    _case("QwenImageEditPlusPipeline", "qwen", _seeing_from_afar, **LARGE, image=PICTURE),
    _case(
        "QwenImageLayeredPipeline",
        "qwen",
        _layered,
        "a fourth channel, such as transparency",
        image=PICTURE.convert("RGBA"),
        layers=1,
    ),
    TinyPipeline("LongCatImageEditPipeline", longcat_edit, call={"image": PICTURE}),
    TinyPipeline(
        "BriaFiboEditPipeline", fibo_edit, call={**SIZE, "image": PICTURE}, refused="has to be a valid edit JSON"
    ),
    TinyPipeline("JoyImageEditPipeline", joy_edit, call={"image": PICTURE}, refused=_UNKNOWN),
    TinyPipeline("JoyImageEditPlusPipeline", joy_edit_plus, call={"images": [PICTURE]}, refused=_UNKNOWN),
    TinyPipeline("ZImageOmniPipeline", z_image_omni, call=SIZE, refused="do not depend on the scheduler's latents"),
    TinyPipeline(
        "Kandinsky5I2IPipeline",
        family="Kandinsky5T2IPipeline",
        parts=_picture_beside,
        call={"image": PICTURE.resize((64, 64))},
        refused="the first latents are made of noise in a way",
        attributes={"resolutions": [(64, 64)]},
    ),
    _case(
        "QwenImageEditInpaintPipeline",
        "qwen",
        _seeing_from_afar,
        height=1024,
        width=1024,
        image=PICTURE,
        mask_image=WHOLE,
        strength=1.0,
    ),
)
