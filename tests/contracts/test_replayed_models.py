"""Every family's null text can be saved and used in that family's stock pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nulltta import NullText, NullTTAConfig, align
from nulltta.null_text.replay import replay
from nulltta.testing import FamilyCase
from nulltta.testing.models import brightness

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' DPM solver


def test_a_saved_null_text_replays_in_the_stock_pipeline(case: FamilyCase, folder: Path, tmp_path: Path) -> None:
    """With the recorded noise, under the run's own sampler, the image is the aligned one bit for bit."""
    model: Any = case.load(folder)
    config = NullTTAConfig(num_inference_steps=3, inner_steps=(2, 2), num_particles=2, guidance_scale=4.0)
    result = align(model, "a cat", brightness, config=config, seed=1)
    result.null_text[0].save(tmp_path / "cat.safetensors", noise=True)
    kept = NullText.load(tmp_path / "cat.safetensors", model.pipeline)
    assert torch.equal(replay(model, kept, exact=True), result.images)

    assert kept.latents is not None
    call = case.arguments(model.to_pipeline(kept.latents[None]), 3, 4.0)
    model.pipeline.set_progress_bar_config(disable=True)
    with kept.apply(model.pipeline, exact=True):
        output = model.pipeline("a cat", negative_prompt="", **call)
    images = output.frames if hasattr(output, "frames") else output.images
    torch.testing.assert_close(images, result.images, rtol=0, atol=case.tolerance)
    plain = replay(model, kept, seeds=[1], plain=True)
    assert float((images - plain).abs().max()) > 1e-4
