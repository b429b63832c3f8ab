"""A null text of the form "tokens" as a textual inversion, which other tools use as a word of the negative prompt.

Stable Diffusion: one tensor "emb_params" (N, D); as .pt, the dictionary of AUTOMATIC1111, whose tensor is under
"string_to_param". SDXL, in both formats: "clip_l" (N, 768) and "clip_g" (N, 1280).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import DoesNotFit, InvalidValue
from nulltta.files import as_error, atomic
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import TokensForm

FORMATS = (".safetensors", ".pt")
_NAMES: Mapping[tuple[str, ...], Mapping[str, str]] = {
    ("text_encoder",): {"text_encoder": "emb_params"},
    ("text_encoder", "text_encoder_2"): {"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
}


def require_format(path: Path) -> None:
    """Refuse a file name that does not say which format is wanted.

    Raises:
        InvalidValue: if it does not end in .safetensors or .pt.
    """
    if path.suffix not in FORMATS or not path.stem:
        raise InvalidValue(f"must end in {' or '.join(FORMATS)}, not '{path.name}'", "out")


def tensors_of(null_text: Any) -> dict[str, Tensor]:
    """Return the learnt tokens (N, D) by the names that other tools know.

    Raises:
        DoesNotFit: if the null text is not made of tokens, or not for Stable Diffusion or SDXL.
    """
    if not isinstance(null_text, FittedNullText) or not isinstance(null_text.form, TokensForm):
        raise DoesNotFit(
            "only a null text that consists of tokens can be a textual inversion: fit one with nulltta fit --form "
            "tokens, or use this one with nulltta replay, diffusers or the ComfyUI nodes"
        )
    if null_text.between != (0, len(null_text.timesteps)):
        raise DoesNotFit("a textual inversion acts at every denoising step, this null text does not: fit another")
    tokens = {name: vectors.detach().float().cpu().contiguous() for name, vectors in null_text.form.tokens.items()}
    names = _NAMES.get(tuple(sorted(tokens)))
    if names is None:
        raise DoesNotFit(f"no tool has a format for textual inversions of {' and '.join(sorted(tokens))}")
    return {names[encoder]: vectors for encoder, vectors in tokens.items()}


def export(null_text: Any, path: str | Path) -> None:
    """Write a null text of the form "tokens" as a textual inversion, completely or not at all.

    Args:
        null_text: the null text.
        path: a file that ends in .safetensors or .pt; its name without the ending is the embedding's.

    Raises:
        DoesNotFit: if the null text is not made of tokens, or not for Stable Diffusion or SDXL.
        InvalidValue: if the file's name ends otherwise, or it cannot be written.
    """
    from safetensors.torch import save_file

    path = Path(path)
    require_format(path)
    tensors = tensors_of(null_text)
    with as_error(path), atomic(path) as temporary:
        if path.suffix == ".pt":
            torch.save(_automatic1111(tensors, path.stem), temporary)
        else:
            about = json.dumps(dict(null_text.about), ensure_ascii=False, default=str)
            save_file(tensors, temporary, {"format": "pt", "name": path.stem, "about": about})


def _automatic1111(tensors: dict[str, Tensor], name: str) -> dict[str, Any]:
    """Return what AUTOMATIC1111 saves: for one text encoder its own layout, for two the tensors by name."""
    if list(tensors) != ["emb_params"]:
        return tensors
    return {
        "string_to_token": {"*": 265}, "string_to_param": {"*": tensors["emb_params"]}, "name": name, "step": 0,
        "sd_checkpoint": None, "sd_checkpoint_name": None,
    }  # fmt: skip
