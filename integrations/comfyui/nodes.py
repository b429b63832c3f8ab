"""The nodes that use null texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths

from nulltta.null_text import loading

from .schemas import Input, Node
from .unconditional import wrapper

FOLDER = "null_texts"
"""The folder below ComfyUI's models. Not `embeddings`: ComfyUI would take a file there for a textual inversion."""

if FOLDER not in folder_paths.folder_names_and_paths:
    place = Path(folder_paths.models_dir) / FOLDER
    place.mkdir(exist_ok=True)
    folder_paths.folder_names_and_paths[FOLDER] = ([str(place)], {".safetensors"})


def load(file: str) -> tuple[Any]:
    """Return the null text of a file in `models/null_texts`."""
    return (loading.load(folder_paths.get_full_path(FOLDER, file)),)


def modified(file: str) -> float:
    """Return when a file was changed."""
    return Path(folder_paths.get_full_path(FOLDER, file)).stat().st_mtime


def apply(model: Any, null_text: Any, positive: Any = None) -> tuple[Any]:
    """Return a copy of the model with the null text; the caller's own is left alone."""
    patched = model.clone()
    inner = patched.model_options.get("model_function_wrapper")

    def timestep_of(sigma: Any) -> Any:
        return patched.model.model_sampling.timestep(sigma)

    patched.set_model_unet_function_wrapper(wrapper(null_text, timestep_of, positive, inner))
    return (patched,)


NODES = (
    Node(
        "NullTTALoadNullText", "Load Null Text",
        "Read a null text that nulltta align or nulltta fit wrote, from models/null_texts.",
        [Input("file", lambda: folder_paths.get_filename_list(FOLDER), "The file.")],
        {"null_text": "NULL_TEXT"}, load, modified,
    ),
    Node(
        "NullTTAApplyNullText", "Apply Null Text",
        "Replace the negative prompt by a null text at each step, in a copy of the model.",
        [
            Input("model", "MODEL", "The model."),
            Input("null_text", "NULL_TEXT", "The null text."),
            Input("positive", "CONDITIONING", "The prompt, for null texts of the form prompt.", optional=True),
        ],
        {"MODEL": "MODEL"}, apply,
    ),
)  # fmt: skip
