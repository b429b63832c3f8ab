"""From a name to a loaded diffusers pipeline: the embedded model, a directory, a hub id or a single file."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from nulltta import hub
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import InvalidValue, LoadError, MissingExtra, NullTTAError, first_line, is_out_of_memory
from nulltta.models.checks import require_supported
from nulltta.models.recording import call_parameters

EMBEDDED = WORLDS["embedded"].weights / "sd"
VARIANTS = (None, "fp16", "bf16")
"""Which files of weights are looked for, in this order: many repositories hold one half-precision copy only."""
# The library that a pipeline class's code needs beside diffusers, and the extra that brings it: no attribute of the
# class says so.
_EXTRAS: Mapping[str, tuple[str, str]] = {"KolorsPipeline": ("sentencepiece", "kolors")}


def load_pipeline(source: str, base_model: str | None, dtype: torch.dtype) -> Any:
    """Load a pipeline on the CPU.

    Args:
        source: "embedded", "scenes", either with "-turbo", a diffusers directory, a hub id, or a file of weights
            that ends in .safetensors.
        base_model: for a file, the directory or hub id of the pipeline whose configuration it shares.
        dtype: of its floating-point weights; quantised ones keep their own.

    Raises:
        InvalidValue: if there is no such source, or its pipeline is not supported.
        LoadError: if it does not load.
        MissingExtra: if a library that it needs is not installed.
    """
    location = _locate(source)
    is_file = location.endswith(".safetensors")
    if base_model is not None and not is_file:
        raise InvalidValue("belongs to a single file of weights: leave it out", field="base_model")
    try:
        pipeline = (
            _from_file(location, base_model, dtype) if is_file else _from_directory(location, source, dtype)
        )  # fmt: skip
        if source in WORLDS and (folder := WORLDS[source].distilled):
            pipeline = _distilled(pipeline, folder, WORLDS[source].distil)
    except (OSError, ValueError, RuntimeError, ImportError, TypeError, KeyError) as error:
        if isinstance(error, NullTTAError) or is_out_of_memory(error):
            raise
        raise LoadError(f"model '{source}' does not load: {first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _distilled(pipeline: Any, folder: Path, train: str) -> Any:
    """Fold a LoRA that distils a pipeline to few steps into its denoiser, and give it the scheduler of its levels."""
    import diffusers

    if find_spec("peft") is None:
        raise MissingExtra("a distilled model", "peft", "lora")
    if not folder.is_dir():
        raise LoadError(f"there are no weights in {folder}: `{train}` trains them")
    pipeline.load_lora_weights(folder)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    pipeline.scheduler = diffusers.LCMScheduler.from_pretrained(folder, subfolder="scheduler")
    return pipeline


def for_call(pipeline: Any, call: Mapping[str, Any]) -> Any:
    """Return the pipeline of the same components that takes the call's picture and mask; itself if it does, or none."""
    import diffusers

    wanted = {"mask_image": "AutoPipelineForInpainting", "image": "AutoPipelineForImage2Image"}
    argument = next((name for name in wanted if name in call), None)
    if argument is None or argument in call_parameters(type(pipeline)):
        return pipeline
    try:
        other = getattr(diffusers, wanted[argument]).from_pipe(pipeline)
    except ValueError:  # there is none: the check of the call says so
        return pipeline
    other.set_progress_bar_config(disable=True)
    return other


def _from_directory(location: str, source: str, dtype: torch.dtype) -> Any:
    import diffusers

    local = _require_here_or_online(location, source)
    index = diffusers.DiffusionPipeline.load_config(location, local_files_only=local)
    kind = _class_of(index)
    absent = _absent(index, kind)
    failures: list[Exception] = []
    for variant in VARIANTS:
        try:
            return diffusers.DiffusionPipeline.from_pretrained(
                location, dtype=dtype, variant=variant, local_files_only=local, **absent
            )
        except (OSError, ValueError) as error:
            failures.append(error)
            if not _lacks_weights(error):
                break
    raise LoadError(f"model '{source}' does not load: {first_line(failures[0])}") from failures[0]


def _require_here_or_online(location: str, source: str) -> bool:
    """Return whether a pipeline is loaded from this machine alone, because it is a directory or the hub is silent.

    Raises:
        LoadError: if it is neither here nor can be fetched.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(location).is_dir():
        return True
    if hub.reachable():
        return False
    if not isinstance(try_to_load_from_cache(location, "model_index.json"), str):
        raise LoadError(f"model '{source}' is not in the hub's cache, and cannot be downloaded (offline)")
    return True


def _from_file(location: str, base_model: str | None, dtype: torch.dtype) -> Any:
    """Load a single file; the classes and configurations are those of the base model."""
    import diffusers
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

    guessed = base_model is None
    if base_model is None:
        base_model = str(fetch_diffusers_config(load_single_file_checkpoint(location))["pretrained_model_name_or_path"])
    else:
        base_model = _locate(base_model)
    try:
        local = _require_here_or_online(base_model, base_model)
        index = diffusers.DiffusionPipeline.load_config(base_model, local_files_only=local)
    except (OSError, LoadError) as error:
        if not guessed:
            raise LoadError(f"base model '{base_model}' does not load: {first_line(error)}") from error
        raise LoadError(
            f"'{location}' holds weights only, and the configuration that they seem to need, {base_model}, cannot be "
            "fetched: give the diffusers directory or hub id of the pipeline that they were made from (base_model)"
        ) from error
    kind = _class_of(index)
    if not hasattr(kind, "from_single_file"):
        raise InvalidValue(f"{kind.__name__} does not load from a single file: give a diffusers directory")
    return kind.from_single_file(location, config=base_model, dtype=dtype, **_absent(index, kind))


def _class_of(index: Mapping[str, Any]) -> Any:
    """Return the supported pipeline class that a model's index names."""
    import diffusers

    family = str(index.get("_class_name", "?"))
    require_supported(family, getattr(diffusers, family, None))
    library, extra = _EXTRAS.get(family, ("", ""))
    if library and find_spec(library) is None:
        raise MissingExtra(family, library, extra)
    return getattr(diffusers, family)


def _absent(index: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Return the components that stay out: those that the index leaves out, and the safety checker."""
    absent: dict[str, Any] = {
        part: None for part, value in index.items() if isinstance(value, list) and value[:1] == [None]
    }
    if "requires_safety_checker" in inspect.signature(kind.__init__).parameters:
        absent |= {"safety_checker": None, "requires_safety_checker": False}
    return absent


def _lacks_weights(error: Exception) -> bool:
    """Whether a pipeline did not load because files of weights have other names than those looked for."""
    return bool(re.search(r"no file named|variant|does not appear to have", str(error)))


def _locate(source: str) -> str:
    """A directory that holds a pipeline, a file or a hub id; anything else is refused before diffusers is imported."""
    if source in WORLDS:
        return str(WORLDS[source].pipeline())
    if source and Path(source).is_dir():
        index = Path(source) / "model_index.json"
        if not index.is_file():
            raise LoadError(f"'{source}' is not a diffusers model: it has no model_index.json")
        try:
            json.loads(index.read_text())
        except ValueError as error:
            raise LoadError(f"'{source}' is not a diffusers model: its model_index.json is not JSON") from error
        return source
    if source.endswith(".safetensors") and Path(source).is_file():
        return source
    if Path(source).is_file() and Path(source).suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise InvalidValue(f"'{source}' may hold code: convert it to .safetensors first")
    if hub.is_hub_id(source) and not source.endswith(".safetensors") and not Path(source).exists():
        return source
    raise InvalidValue(
        f"unknown model '{source}': give 'embedded', a diffusers directory, a .safetensors file, or a hub id such as "
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )
