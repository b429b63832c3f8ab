"""The identity of a model as far as a null text depends on it: pipeline class, denoiser and text encoders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from nulltta.contracts import GuidedModel
from nulltta.models.recording import denoisers

_SAMPLE = 64  # values per parameter that the hash of a text encoder reads


def identity(model: Any) -> dict[str, str]:
    """Return the identity of a `GuidedModel` or of a diffusers pipeline.

    Returns:
        "pipeline", the class; "denoiser", a hash of its configuration without names and versions, so that fine-tunes of
        one architecture agree; "text_encoder", a hash of each encoder's kind and size and of a sample of its weights
        rounded to bfloat16, so that a copy in another precision agrees. A model without a pipeline has only its class.
    """
    pipeline = model.pipeline if isinstance(model, GuidedModel) else model
    if pipeline is None:
        return {"pipeline": type(model).__name__}
    found = {"pipeline": type(pipeline).__name__}
    if (part := next(iter(denoisers(pipeline).values()), None)) is not None:
        config = {key: value for key, value in dict(part.config).items() if not key.startswith("_")}
        found["denoiser"] = _digest(json.dumps(config, sort_keys=True, default=str).encode())
    encoders = sorted(name for name in pipeline.components if name.startswith("text_encoder"))
    modules = {name: module for name in encoders if (module := getattr(pipeline, name)) is not None}
    found["text_encoder"] = _digest(b"".join(name.encode() + _sample(module) for name, module in modules.items()))
    return found


def differences(made_for: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return in words what differs between two identities; empty if a null text made for one fits the other."""
    if made_for.get("pipeline") != here.get("pipeline"):
        return [f"it was made for {made_for.get('pipeline', 'an unknown model')}, this is {here.get('pipeline')}"]
    said = {"denoiser": "the denoiser's configuration differs", "text_encoder": "the text encoder differs"}
    return [words for key, words in said.items() if made_for.get(key) != here.get(key)]


def _sample(module: torch.nn.Module) -> bytes:
    parts = [type(module).__name__.encode()]
    for name, parameter in module.named_parameters():
        parts.append(f"{name}{tuple(parameter.shape)}".encode())
        if parameter.device.type != "meta":
            values = parameter.detach().flatten()[:_SAMPLE].to(torch.bfloat16)
            parts.append(values.view(torch.int16).cpu().numpy().tobytes())
    return b"".join(parts)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
