"""A tiny Stable Diffusion in the real file format, loaded through the real `from_pretrained`."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on tiny tensors, more threads would be slower: in child processes too
os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's own low priority they would starve beside other tests

import pytest
import torch

import nulltta
from nulltta.config.presets import PRESETS

from .tiny import save_stable_diffusion

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a tiny StableDiffusionPipeline."""
    return save_stable_diffusion(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> nulltta.GuidedModel:
    """Return a model of the tiny checkpoint, which a test leaves as it was."""
    return nulltta.load_model(str(checkpoint), device="cpu")


@pytest.fixture
def config() -> nulltta.NullTTAConfig:
    """Return short settings: 3 steps, 1 to 2 inner steps, 2 candidates."""
    return nulltta.NullTTAConfig(
        num_inference_steps=3, inner_steps=(1, 2), num_particles=2, guidance_scale=3.0, annealing="auto"
    )


@pytest.fixture
def short_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the embedded model's preset short, for tests of what takes its settings from there."""
    for name, value in {"num_inference_steps": 3, "inner_steps": (1, 1), "num_particles": 2}.items():
        monkeypatch.setitem(PRESETS["embedded"], name, value)  # type: ignore[arg-type]
