"""Tiny pipelines that change a picture by a text, which most of them read together with the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .derived_diffusions import _case
from .tiny_builders import _eightfold, loud
from .tiny_pipelines import PICTURE, SIZE, WHOLE, TinyPipeline
from .tiny_vision import VisionProcessor, qwen25_vl, qwen_tokenizer


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


EDITS = (
    _case("QwenImageEditPipeline", "qwen", _seeing, **SIZE, image=PICTURE),
    _case("QwenImageEditPlusPipeline", "qwen", _seeing, **SIZE, image=PICTURE),
    TinyPipeline(
        "Kandinsky5I2IPipeline",
        family="Kandinsky5T2IPipeline",
        parts=_picture_beside,
        call={"image": PICTURE.resize((64, 64))},
        attributes={"resolutions": [(64, 64)]},
    ),
    _case("QwenImageEditInpaintPipeline", "qwen", _seeing, **SIZE, image=PICTURE, mask_image=WHOLE, strength=1.0),
)
