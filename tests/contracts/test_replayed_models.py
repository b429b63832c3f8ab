"""Every family's null text is kept in a file and used in that family's stock pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullText, NullTTAConfig, align
from nulltta.null_text.replay import replay

from ..tiny_families import CALLS, call_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' DPM solver

ROUNDED = ("qwen", "wan")  # whose pipelines guide, or decode, in another order of operations than their adapters


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


def test_a_kept_null_text_replays_in_the_stock_pipeline(family: str, folder: Path, tmp_path: Path) -> None:
    """With the recorded noise, and so under the run's own sampler: the aligned image, bit for bit."""
    model: Any = nulltta.load_model(folder, device="cpu", **call_of(family))
    config = NullTTAConfig(num_inference_steps=3, inner_steps=(2, 2), num_particles=2, guidance_scale=4.0)
    result = align(model, "a cat", brightness, config=config, seed=1)
    result.null_text[0].save(tmp_path / "cat.safetensors", noise=True)
    kept = NullText.load(tmp_path / "cat.safetensors", model.pipeline)
    assert torch.equal(replay(model, kept, exact=True), result.images)

    assert kept.latents is not None
    call = dict(CALLS.get(family, {}))
    scale = call.pop("scale", "guidance_scale")
    pack = model.to_pipeline
    call |= {"num_inference_steps": 3, scale: 4.0, "latents": pack(kept.latents[None]), "output_type": "pt"}
    model.pipeline.set_progress_bar_config(disable=True)
    with kept.apply(model.pipeline, exact=True):
        output = model.pipeline("a cat", negative_prompt="", **call)
    images = output.frames if hasattr(output, "frames") else output.images
    if family in ROUNDED:
        torch.testing.assert_close(images, result.images, rtol=0, atol=1e-5)
    else:
        assert torch.equal(images, result.images)
    plain = replay(model, kept, seeds=[1], plain=True)
    assert float((images - plain).abs().max()) > 1e-4
