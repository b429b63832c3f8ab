"""A tiny decoder beside the model's own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.embedded.grammar import sample
from nulltta.embedded.render import render_batch

SETTINGS: dict[str, Any] = {"num_inference_steps": 3, "inner_steps": (2, 2), "num_particles": 2, "guidance_scale": 3.0}


def _save_tiny(folder: Path, channels: int = 4) -> Path:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    small = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1)}
    tiny = AutoencoderTiny(latent_channels=channels, num_decoder_blocks=(1, 1), **small)
    tiny.save_pretrained(folder)
    return folder


def test_the_inner_steps_decode_with_it_and_candidates_in_full(checkpoint: Path, tmp_path: Path) -> None:
    model = nulltta.load_model(str(checkpoint), tiny_decoder=_save_tiny(tmp_path / "tiny"))
    seen: list[tuple[bool, int]] = []

    def reward(images: torch.Tensor, prompts: Any) -> torch.Tensor:
        seen.append((images.requires_grad, images.shape[-1]))
        return images.mean((1, 2, 3))

    result = align(model, "a cat", reward, config=NullTTAConfig(inner_decoder="tiny", **SETTINGS))
    full = result.images.shape[-1]
    inner = {size for gradient, size in seen if gradient}
    assert {size for gradient, size in seen if not gradient} == {full}
    assert inner == {full}
    assert not torch.equal(result.images, align(model, "a cat", reward, config=NullTTAConfig(**SETTINGS)).images)


def test_a_tiny_decoder_is_asked_for_by_name_and_must_fit(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(NullTTAError, match="no tiny decoder: load one with it"):
        align(nulltta.load_model(str(checkpoint)), "a cat", "brightness",
              config=NullTTAConfig(inner_decoder="tiny", **SETTINGS))  # fmt: skip
    with pytest.raises(NullTTAError, match=r"^tiny_decoder reads latents of 16 channels"):
        nulltta.load_model(str(checkpoint), tiny_decoder=_save_tiny(tmp_path / "tiny", channels=16))
    with pytest.raises(NullTTAError, match=r"^tiny_decoder .*nothing.* does not load"):
        nulltta.load_model(str(checkpoint), tiny_decoder=tmp_path / "nothing")


def test_the_embedded_models_tiny_decoder_imitates_its_full_one() -> None:
    model: Any = nulltta.load_model("embedded")
    with torch.no_grad():
        x0 = model.pipeline.vae.latents(
            render_batch([sample(random.Random(1)) for _ in range(8)], random.Random(1)) / 127.5 - 1
        )
        full, tiny = model.decode(x0), model.decode(x0, "tiny")
    assert (full - tiny).abs().mean() < 0.05
    assert (full - tiny).abs().mean() < 0.2 * (full - full.mean()).abs().mean()
