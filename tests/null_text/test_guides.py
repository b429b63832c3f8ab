"""The code that the guides show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, align

from ..tiny_families import save_sdxl

GUIDE = Path(__file__).parents[2] / "docs" / "null-texts.md"
REPOSITORY = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture
def verbosity() -> Iterator[None]:
    """Restore diffusers' log level, which a modular pipeline changes."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


def _code(word: str) -> str:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if word in block)
    return str(code)


@pytest.mark.usefixtures("verbosity")
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' Euler scheduler
def test_the_modular_guider_gives_the_images_of_apply_in_the_stock_pipeline(tmp_path: Path) -> None:
    folder = save_sdxl(tmp_path / "model")
    model: Any = nulltta.load_model(folder, device="cpu")
    config = NullTTAConfig(num_inference_steps=4, inner_steps=(1, 1), num_particles=1, learning_rate=0.05)
    learnt = align(model, "a cat", lambda images, prompts: images.flatten(1).mean(1), config=config).null_text[0]
    latents = model.initial_latents(1, torch.Generator().manual_seed(0))
    model.pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 4, "latents": latents, "output_type": "pt"}
    with learnt.apply(model.pipeline):
        expected = model.pipeline("a cat", guidance_scale=7.5, **call).images

    names: dict[str, Any] = {"null_text": learnt}
    assembly, _, _ = _code("ModularPipeline").replace(REPOSITORY, str(folder)).rpartition("image = ")
    exec(assembly, names)
    names["pipe"].set_progress_bar_config(disable=True)
    images = names["pipe"](prompt="a cat", output="images", **call)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    plain = model.pipeline("a cat", negative_prompt="", guidance_scale=7.5, **call).images
    assert float((images - plain).abs().max()) > 1e-3
