"""Negative embeddings without a word about their model, such as ReNeg's (arXiv 2412.19637): one tensor (1, L, D)."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import free
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel
from nulltta.errors import DoesNotFit, InvalidValue, LoadError, first_line
from nulltta.models import load_model
from nulltta.null_text import file
from nulltta.null_text.file import NullTextFields
from nulltta.null_text.identity import identity
from nulltta.null_text.sources import BARE


def is_bare(path: Path) -> bool:
    """Return whether a file holds an embedding only: one of torch's, or a safetensors file of one that is not ours.

    Raises:
        LoadError: if a safetensors file does not exist or is damaged.
    """
    if path.suffix in BARE:
        return True
    metadata, tensors = file.read_tensors(path)
    ours = metadata.get("format", "").startswith("nulltta")
    return not ours and len(tensors) == 1 and next(iter(tensors.values())).dim() in (2, 3)


def read(path: Path, model: Any) -> NullTextFields:
    """Read a bare embedding as the null text of all steps and prompts.

    Args:
        path: a safetensors file, or one that `torch.load(weights_only=True)` reads: a tensor, or a dictionary of one.
        model: the model, or the diffusers pipeline, for which it was made.

    Raises:
        LoadError: if the file does not exist, is damaged, or holds anything but one tensor of finite numbers.
        InvalidValue: if no model is given.
        DoesNotFit: if the tensor's shape is not that of the model's null embedding.
    """
    value = _tensor(path)
    if model is None:
        raise InvalidValue(
            f"is needed: '{path}' is a bare embedding, which does not say what it was made for; load it once with "
            "NullText.load(file, model) and save it",
            "model",
        )
    model = model if isinstance(model, GuidedModel) else load_model(model)
    _, null = model.encode(["a"], [""])
    places = free(null)
    shapes = ", ".join(f"'{name}' {tuple(tensor.shape)}" for name, tensor in places.items())
    if len(places) != 1:
        raise DoesNotFit(f"'{path}' holds one embedding, and the null text of {model.name} has {len(places)}: {shapes}")
    ((name, like),) = places.items()
    if value.dim() == 2:
        raise DoesNotFit(f"'{path}' has shape {tuple(value.shape)}, as a textual inversion has: load it with the "
                         "pipeline's load_textual_inversion and name it in the negative prompt")  # fmt: skip
    if value.shape != like.shape:
        raise DoesNotFit(f"'{path}' has shape {tuple(value.shape)}, the null text of {model.name} is {shapes}")
    config = NullTTAConfig.preset(model.name)
    first, where = float(model.schedule(config.num_inference_steps)[0].timestep), _first_step_only(model, config)
    phi = {key: tensor[0].cpu() for key, tensor in null.items()}
    about = {"model": identity(model), "model_name": model.name, "reward": "", "config": asdict(config), "licence": "",
             **where}  # fmt: skip
    return {
        "timesteps": [first], "values": [{**phi, name: value[0].float()}], "prompt": "", "null": phi, "about": about,
        "latents": None, "noise": None, "image": None,
    }  # fmt: skip


def _first_step_only(model: GuidedModel, config: NullTTAConfig) -> dict[str, Any]:
    """Return where the null branch is, as of a run of one step, which is the nearest one to all."""
    where = dict(model.placement(config.num_inference_steps))
    if not where:
        return {}
    time = where["time"]
    return {"where": {**where, "time": {**time, "values": time["values"][:1]}}}


def _tensor(path: Path) -> Tensor:
    """Return the one tensor of a file.

    Raises:
        LoadError: if the file does not exist, is damaged, or holds anything else.
    """
    held: Any
    if path.suffix not in BARE:
        held = file.read_tensors(path)[1]
    else:
        try:
            held = torch.load(path, weights_only=True, map_location="cpu")
        except FileNotFoundError as error:
            raise LoadError(f"there is no file '{path}'") from error
        except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise LoadError(f"'{path}' is damaged, or holds more than tensors: {first_line(error)}") from error
    tensors = list(held.values()) if isinstance(held, Mapping) else [held]
    if len(tensors) != 1 or not isinstance(tensors[0], Tensor) or not tensors[0].is_floating_point():
        raise LoadError(f"'{path}' is not a negative embedding: it should hold one tensor of shape (1, tokens, width)")
    if not bool(tensors[0].isfinite().all()):
        raise LoadError(f"'{path}' holds numbers that are not finite")
    return tensors[0].detach()
