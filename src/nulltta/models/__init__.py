"""`load_model`: from a name, a directory, a hub id or a live diffusers pipeline to a `GuidedModel`.

One file a family of denoisers; FAMILIES says which pipeline class each one adapts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.models import tiny
from nulltta.quiet import quiet_libraries

FAMILIES: Mapping[str, tuple[str, str]] = {
    "StableDiffusionPipeline": ("nulltta.models.unet", "StableDiffusion"),
    "StableDiffusionXLPipeline": ("nulltta.models.unet", "StableDiffusionXL"),
    "KolorsPipeline": ("nulltta.models.unet", "Kolors"),
    "StableDiffusion3Pipeline": ("nulltta.models.sd3", "StableDiffusion3"),
    "PixArtSigmaPipeline": ("nulltta.models.masked", "PixArtSigma"),
    "SanaPipeline": ("nulltta.models.masked", "Sana"),
    "FluxPipeline": ("nulltta.models.flux", "Flux"),
    "QwenImagePipeline": ("nulltta.models.flux", "QwenImage"),
    "AuraFlowPipeline": ("nulltta.models.dit", "AuraFlow"),
    "CogView4Pipeline": ("nulltta.models.dit", "CogView4"),
    "WanPipeline": ("nulltta.models.video", "Wan"),
    "LTXPipeline": ("nulltta.models.video", "LTX"),
}
REFUSED: Mapping[str, str] = {
    "LatentConsistencyModelPipeline": "a consistency model is guidance-distilled",
    "SanaSprintPipeline": "it is guidance-distilled",
}
# Parts that a checkpoint may lack, or that are not wanted: loaded as absent.
_ABSENT: Mapping[str, Mapping[str, Any]] = {
    "StableDiffusionPipeline": {"safety_checker": None, "requires_safety_checker": False},
}
_OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "StableDiffusion3Pipeline": ("text_encoder_3", "tokenizer_3"),
    "WanPipeline": ("transformer_2",),
}
# The library that a family's checkpoint cannot be loaded without, and the extra that brings it.
_EXTRAS: Mapping[str, tuple[str, str]] = {"KolorsPipeline": ("sentencepiece", "kolors")}
EMBEDDED = Path(__file__).parent.parent / "embedded" / "weights" / "sd"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_model(
    source: str | Path | Any,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    null: str | None = None,
    tiny_decoder: str | Path | Any = None,
    compile: bool = False,  # noqa: A002 - torch's word for it
) -> GuidedModel:
    """A frozen model to align.

    Args:
        source: "embedded", a diffusers directory, a hub id ("org/name"), or a live `DiffusionPipeline`, which
            is left as it is: it can be trained, changed or called between two uses of the model.
        device: default: the GPU if there is one; a live pipeline stays where it is.
        dtype: default: float32 on the CPU, bfloat16 on a GPU; a live pipeline keeps its own.
        null: which null text to start from, where the family offers a choice (docs/families.md): SDXL "text" or
            "zeros", PixArt and Sana "masked" or "open".
        tiny_decoder: for `inner_decoder="tiny"`: a directory or hub id of an `AutoencoderTiny` that reads this
            model's latents, such as madebyollin/taesd, or a loaded one. The embedded model has its own.
        compile: compile the denoiser and the decoder, in place (docs/performance.md says when that pays).

    Raises:
        NullTTAError: there is no such model, its family is not supported, or it has no null branch.
    """
    if isinstance(source, str | Path):
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        location, name = _locate(str(source)), str(source)
        with quiet_libraries():
            pipeline = _from_pretrained(location, name, dtype).to(device)
            _freeze(pipeline)
            return _equipped(_adapt(pipeline, name, null), tiny_decoder, compile)
    if not hasattr(source, "components"):
        raise InvalidValue(f"a {type(source).__name__} is no model: give a name, a directory or a diffusers pipeline")
    pipeline = source if device is None and dtype is None else source.to(device=device, dtype=dtype)
    return _equipped(_adapt(pipeline, type(pipeline).__name__, null), tiny_decoder, compile)


def _from_pretrained(location: str, source: str, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    try:
        index = DiffusionPipeline.load_config(location)
        family = index.get("_class_name", "?")
        _require_supported(family)
        _require_extra(family)
        absent = dict(_ABSENT.get(family, {})) | {
            part: None for part in _OPTIONAL.get(family, ()) if not index.get(part, [None])[0]
        }
        pipeline = DiffusionPipeline.from_pretrained(location, dtype=dtype, **absent)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if isinstance(error, NullTTAError):
            raise
        raise InvalidValue(f"model '{source}' does not load: {_first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _freeze(pipeline: Any) -> None:
    """Freeze a pipeline of our own for good, so that `Frozen` has nothing left to do, in the layout a GPU prefers."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    unet: Any = getattr(pipeline, "unet", None)
    if unet is not None and unet.device.type == "cuda":
        for network in (unet, pipeline.vae):  # half-precision convolutions are made for it
            network.to(memory_format=torch.channels_last)


def _locate(source: str) -> str:
    """A directory that holds a pipeline, or a hub id; anything else is refused before diffusers is imported."""
    if source == "embedded":
        return str(EMBEDDED)
    if source and Path(source).is_dir():
        index = Path(source) / "model_index.json"
        if not index.is_file():
            raise InvalidValue(f"'{source}' is no diffusers model: it has no model_index.json")
        try:
            json.loads(index.read_text())
        except ValueError as error:
            raise InvalidValue(f"'{source}' is no diffusers model: its model_index.json is not JSON") from error
        return source
    if _HUB_ID.fullmatch(source) and not Path(source).exists():
        return source
    raise InvalidValue(
        f"unknown model '{source}': give 'embedded', a diffusers directory, or a hub id such as "
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )


def adapter_of(family: str) -> Any:
    """The adapter's class of a pipeline class's name."""
    _require_supported(family)
    module, adapter = FAMILIES[family]
    return getattr(import_module(module), adapter)


def _adapt(pipeline: Any, name: str, null: str | None) -> GuidedModel:
    family = type(pipeline).__name__
    adapter = adapter_of(family)
    if null is not None and null not in adapter.NULLS:
        raise InvalidValue(f"{family} has no null '{null}': choose one of {', '.join(adapter.NULLS)}")
    options = {} if null is None or len(adapter.NULLS) == 1 else {"null": null}
    model: GuidedModel = adapter(pipeline, name, **options)
    return model


def _equipped(model: Any, tiny_decoder: Any, compiled: bool) -> GuidedModel:
    """Give a model its tiny decoder, and compile its networks, in place."""
    if tiny_decoder is None and model.name == "embedded":
        tiny_decoder = tiny.EMBEDDED
    if tiny_decoder is not None:
        tiny.attach(model, tiny_decoder)
    denoisers = model.WIRING.denoisers_of(model.pipeline)
    networks = [*denoisers, getattr(model.vae, "decoder", model.vae)]
    for network in networks if compiled else ():
        network.compile()
    equipped: GuidedModel = model
    return equipped


def _require_supported(family: str) -> None:
    if family in REFUSED:
        raise InvalidValue(f"{family} is not supported: {REFUSED[family]}, so there is no null branch to optimise")
    if family not in FAMILIES:
        raise InvalidValue(f"{family} is not supported: the families are {', '.join(FAMILIES)}")


def _require_extra(family: str) -> None:
    library, extra = _EXTRAS.get(family, ("", ""))
    if library and find_spec(library) is None:
        raise InvalidValue(f"{family} needs {library}: pip install 'nulltta[{extra}]'")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
