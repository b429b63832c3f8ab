"""A pipeline with an IP-Adapter, whose call is given the embeddings of a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nulltta import NullTTAConfig, align, load_model
from nulltta.null_text.replay import replay
from nulltta.testing.stock import stock_images

from ..tiny import stable_diffusion

SETTINGS = NullTTAConfig(num_inference_steps=3, inner_steps=(1, 1), num_particles=1, guidance_scale=4.0, eta=0.0)


def _adapter(unet: Any) -> dict[str, Any]:
    """Random weights of an IP-Adapter in its published format."""
    from diffusers.models import ImageProjection

    torch.manual_seed(0)
    width = unet.config.cross_attention_dim
    projected = ImageProjection(image_embed_dim=width, cross_attention_dim=width, num_image_text_embeds=4).state_dict()
    names = {"image_embeds.weight": "proj.weight", "image_embeds.bias": "proj.bias"}
    attention = {}
    layers = [layer for name, layer in unet.named_modules() if name.endswith("attn2")]
    for i, layer in enumerate(layers):
        for each in ("k", "v"):
            attention[f"{2 * i + 1}.to_{each}_ip.weight"] = torch.randn(layer.to_k.out_features, width)
    return {"image_proj": {names.get(name, name): value for name, value in projected.items()}, "ip_adapter": attention}


@pytest.fixture
def pipeline(checkpoint: Path) -> Any:
    found = stable_diffusion(checkpoint)
    found.unet._load_ip_adapter_weights([_adapter(found.unet)])
    return found


def _embeds(pipeline: Any) -> torch.Tensor:
    """The embeddings of no picture and of a picture."""
    width = pipeline.unet.config.cross_attention_dim
    picture = torch.randn((1, 1, width), generator=torch.Generator().manual_seed(1))
    return torch.cat([torch.zeros_like(picture), picture])


def test_its_call_is_followed_with_and_without_a_learnt_null_text(pipeline: Any) -> None:
    """The null branch sees the embedding of no picture, and the conditional one that of the picture."""
    embeds = _embeds(pipeline)
    model: Any = load_model(pipeline, ip_adapter_image_embeds=[embeds])
    result = align(model, "a cat", "brightness", config=SETTINGS, seed=3)
    stock = stock_images(model, "a cat", "", SETTINGS, seed=3)
    torch.testing.assert_close(result.baseline, stock, rtol=0, atol=2e-5)
    assert float(result.trace[0].kl) > 0
    null = result.null_text[0]
    with null.apply(pipeline):
        theirs = stock_images(model, "a cat", "", SETTINGS, seed=3)
    torch.testing.assert_close(replay(model, null, seeds=[3]), theirs, rtol=0, atol=2e-5)
    other: Any = load_model(pipeline, ip_adapter_image_embeds=[-embeds])
    unlike = align(other, "a cat", "brightness", config=SETTINGS, seed=3, method="plain").images
    assert float((unlike - stock).abs().max()) > 1e-4  # the picture matters


def test_guidance_inside_attention_keeps_the_picture_of_the_adapter(pipeline: Any) -> None:
    """Both halves see the picture, as the prompt's branch of a stock call without classifier-free guidance does."""
    embeds = _embeds(pipeline)
    model: Any = load_model(pipeline, ip_adapter_image_embeds=[embeds])
    nag = replace(SETTINGS, guidance="nag", nag_scale=3.0)
    null = align(model, "a cat", "brightness", config=nag, seed=3).null_text[0]
    ours = replay(model, null, seeds=[3])
    model.stock = replace(model.stock, options={"ip_adapter_image_embeds": [embeds[1:]]})
    with null.apply(pipeline):
        theirs = stock_images(model, "a cat", "", nag, seed=3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
