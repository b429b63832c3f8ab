"""The nodes, in ComfyUI's classic schema, which every version of ComfyUI reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths

from nulltta.null_text import loading

from .unconditional import wrapper

FOLDER = "null_texts"
"""The folder below ComfyUI's models. Not `embeddings`: ComfyUI would take a file there for a textual inversion."""

if FOLDER not in folder_paths.folder_names_and_paths:
    place = Path(folder_paths.models_dir) / FOLDER
    place.mkdir(exist_ok=True)
    folder_paths.folder_names_and_paths[FOLDER] = ([str(place)], {".safetensors"})


class LoadNullText:
    """Reads a null text from `models/null_texts`."""

    RETURN_TYPES = ("NULL_TEXT",)
    RETURN_NAMES = ("null_text",)
    FUNCTION = "load"
    CATEGORY = "conditioning/null text"
    DESCRIPTION = "Read a null text that nulltta align or nulltta fit wrote, from models/null_texts."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"file": (folder_paths.get_filename_list(FOLDER),)}}

    @classmethod
    def IS_CHANGED(cls, file: str) -> float:  # noqa: N802 - ComfyUI's name
        return Path(folder_paths.get_full_path(FOLDER, file)).stat().st_mtime

    def load(self, file: str) -> tuple[Any]:
        """Return the null text."""
        return (loading.load(folder_paths.get_full_path(FOLDER, file)),)


class ApplyNullText:
    """Lets a MODEL evaluate its negative branch under a null text, at each step the nearest one."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply"
    CATEGORY = "conditioning/null text"
    DESCRIPTION = "Replace the negative prompt by a null text at each step, in a copy of the model."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {
            "required": {"model": ("MODEL",), "null_text": ("NULL_TEXT",)},
            "optional": {"positive": ("CONDITIONING",)},
        }

    def apply(self, model: Any, null_text: Any, positive: Any = None) -> tuple[Any]:
        """Return a copy of the model with the null text; the caller's own is left alone."""
        patched = model.clone()
        inner = patched.model_options.get("model_function_wrapper")

        def timestep_of(sigma: Any) -> Any:
            return patched.model.model_sampling.timestep(sigma)

        patched.set_model_unet_function_wrapper(wrapper(null_text, timestep_of, positive, inner))
        return (patched,)


NODE_CLASS_MAPPINGS = {"NullTTALoadNullText": LoadNullText, "NullTTAApplyNullText": ApplyNullText}
NODE_DISPLAY_NAME_MAPPINGS = {
    "NullTTALoadNullText": "Load Null Text",
    "NullTTAApplyNullText": "Apply Null Text",
}
