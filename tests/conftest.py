"""A Stable Diffusion small enough to run in a test, in the real file format and through the real `from_pretrained`."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

import nulltta

from .tiny import save_stable_diffusion

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny StableDiffusionPipeline directory."""
    return save_stable_diffusion(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture
def model(checkpoint: Path) -> nulltta.GuidedModel:
    return nulltta.load_model(str(checkpoint), device="cpu")


@pytest.fixture
def config() -> nulltta.NullTTAConfig:
    """Short: 3 steps, 1 to 2 inner steps, 2 candidates."""
    return nulltta.NullTTAConfig(
        num_inference_steps=3, inner_steps=(1, 2), num_particles=2, guidance_scale=3.0, annealing="auto"
    )
