"""Writing the trained networks as the weights that ship, in half precision."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..grammar import Size
from .denoiser import build_scheduler
from .loop import Budget, checkpoint_path
from .sampling import pipeline

SHARD = "15MB"


def halve(module: Any) -> Any:
    """Convert a module to half precision and return it.

    Raises:
        ValueError: if a weight overflows.
    """
    module = module.half()
    if not all(torch.isfinite(value).all() for value in module.state_dict().values()):
        raise ValueError(f"{type(module).__name__} has weights beyond half precision")
    return module


def save_plain(module: Any, folder: Path) -> None:
    """Save one of this package's networks as config.json (its `config`) and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(module.config, indent=1) + "\n")
    save_file({key: value.contiguous() for key, value in halve(module).state_dict().items()},
              folder / "model.safetensors")  # fmt: skip


def load_as_float(config: Path) -> None:
    """Make transformers load half-precision weights as float32, as diffusers does by default.

    Otherwise a plain `from_pretrained` of the pipeline mixes the two and fails.
    """
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def export_pipeline(learner: Any, vae: Any, tokenizer: Any, folder: Path) -> None:
    """Write the autoencoder, text encoder, denoiser, tokenizer and scheduler to a folder, in diffusers' format."""
    parts = pipeline(learner, vae, build_scheduler(), tokenizer)
    for module in (parts.vae, parts.unet, parts.text_encoder):
        halve(module)
    parts.save_pretrained(folder, max_shard_size=SHARD)
    load_as_float(folder / "text_encoder" / "config.json")


def export_scorer(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a contrastive scorer and its tokenizer to a folder."""
    if hasattr(model, "save_pretrained"):
        halve(model).save_pretrained(folder)
    else:
        save_plain(model, folder)
    tokenizer.save_pretrained(folder)


def export_tiny(budget: Budget, out: Path) -> None:
    """Write out/tiny: the tiny decoder in diffusers' format."""
    from . import tiny

    halve(tiny.load(budget)).save_pretrained(out / "tiny")


def export_judge(size: Size, budget: Budget, out: Path) -> None:
    """Write out/judge."""
    from . import judge

    save_plain(judge.load(size, budget), out / "judge")


def export_record(stages: Iterable[str], budget: Budget, out: Path, **about: str) -> None:
    """Write out/training.json: how long each stage trained, on which machine, and `about`."""
    record: dict[str, Any] = {**about, "machine": machine(budget.device), "torch": torch.__version__, "stages": {}}
    for stage in stages:
        found = torch.load(checkpoint_path(budget.folder, stage), weights_only=True, map_location="cpu")
        record["stages"][stage] = {"minutes": round(found["spent"] / 60, 1), "steps": found["step"]}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def machine(device: str) -> str:
    """Return the name of the GPU, or the kind and number of CPU cores."""
    if device != "cpu":
        return str(torch.cuda.get_device_name(device))
    return f"{os.cpu_count()} CPU cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
