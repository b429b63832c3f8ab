"""`load_model`: from a name, a directory, a hub id or a live diffusers pipeline to a `GuidedModel`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue, LoadError, MissingExtra, NullTTAError, first_line
from nulltta.models import tiny
from nulltta.models.distilled import refuse_distilled, refuse_distilled_class
from nulltta.models.observed import ObservedModel
from nulltta.models.recording import denoisers
from nulltta.quiet import quiet_libraries

EMBEDDED = Path(__file__).parent.parent / "embedded" / "weights" / "sd"
NULLS = ("text", "masked", "zeros", "open")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_RUNS_OWN = frozenset(
    {
        "prompt", "negative_prompt", "num_inference_steps", "true_cfg_scale", "generator", "latents", "output_type",
        "return_dict", "num_images_per_prompt", "num_videos_per_prompt", "callback_on_step_end", "timesteps", "sigmas",
        "eta",
    }
)  # fmt: skip
"""Arguments of a pipeline's call that a run sets itself."""
# The library that a pipeline class's code needs beside diffusers, and the extra that brings it: no attribute of the
# class says so.
_EXTRAS: Mapping[str, tuple[str, str]] = {"KolorsPipeline": ("sentencepiece", "kolors")}


def load_model(
    source: str | Path | Any,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    null: str | None = None,
    tiny_decoder: str | Path | Any = None,
    compile: bool = False,  # noqa: A002 - torch's word for it
    **call: Any,
) -> GuidedModel:
    """Load a frozen model to align.

    Args:
        source: "embedded", a diffusers directory, a hub id ("org/name"), or a live `DiffusionPipeline`. A live
            pipeline is left as it is: it can be trained, changed or called between two uses of the model.
        device: default: the GPU if there is one; a live pipeline stays where it is.
        dtype: default: float32 on the CPU, bfloat16 on a GPU; a live pipeline keeps its own.
        null: the null text to start from: "text", the encoded negative prompt; "zeros", what the pipeline does
            without a negative prompt; "open", the encoded one with its mask opened to the padding ("masked" is
            another word for "text"). See docs/families.md.
        tiny_decoder: for `inner_decoder="tiny"`: a directory or hub id of an `AutoencoderTiny` that reads this
            model's latents, such as madebyollin/taesd, or a loaded one. The embedded model has its own.
        compile: compile the denoiser and the decoder, in place (docs/performance.md says when that pays).
        call: keyword arguments of the pipeline's own call, passed through unchanged, such as `height`, `width`,
            `num_frames`, `image`, `strength` or `clip_skip`.

    Raises:
        InvalidValue: if an argument is wrong, or the pipeline is not supported.
        LoadError: if the model does not load.
        MissingExtra: if a library that it needs is not installed.
    """
    if null is not None and null not in NULLS:
        raise InvalidValue(f"there is no null '{null}': choose one of {', '.join(NULLS)}")
    if isinstance(source, str | Path):
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        location, name = _locate(str(source)), str(source)
        with quiet_libraries():
            pipeline = _from_pretrained(location, name, dtype).to(device)
            _freeze(pipeline)
    elif not hasattr(source, "components"):
        raise InvalidValue(
            f"a {type(source).__name__} is not a model: give a name, a directory or a diffusers pipeline"
        )
    else:
        _require_supported(type(source))
        pipeline = source if device is None and dtype is None else source.to(device=device, dtype=dtype)
        name = type(pipeline).__name__
    refuse_distilled(pipeline)
    _require_call(pipeline, call)
    model = ObservedModel(pipeline, name, call, "text" if null in (None, "masked") else null)
    return _equipped(model, tiny_decoder, compile)


def _from_pretrained(location: str, source: str, dtype: torch.dtype) -> Any:
    import diffusers

    try:
        index = diffusers.DiffusionPipeline.load_config(location)
        family = str(index.get("_class_name", "?"))
        refuse_distilled_class(family)
        kind = getattr(diffusers, family, None)
        if kind is None:
            raise InvalidValue(f"{family} is not a pipeline of the installed diffusers")
        _require_supported(kind)
        library, extra = _EXTRAS.get(family, ("", ""))
        if library and find_spec(library) is None:
            raise MissingExtra(family, library, extra)
        absent: dict[str, Any] = {
            part: None for part, value in index.items() if isinstance(value, list) and value[:1] == [None]
        }
        if "requires_safety_checker" in inspect.signature(kind.__init__).parameters:
            absent |= {"safety_checker": None, "requires_safety_checker": False}
        pipeline = diffusers.DiffusionPipeline.from_pretrained(location, dtype=dtype, **absent)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if isinstance(error, NullTTAError):
            raise
        raise LoadError(f"model '{source}' does not load: {first_line(error)}") from error
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
            raise LoadError(f"'{source}' is not a diffusers model: it has no model_index.json")
        try:
            json.loads(index.read_text())
        except ValueError as error:
            raise LoadError(f"'{source}' is not a diffusers model: its model_index.json is not JSON") from error
        return source
    if _HUB_ID.fullmatch(source) and not Path(source).exists():
        return source
    raise InvalidValue(
        f"unknown model '{source}': give 'embedded', a diffusers directory, or a hub id such as "
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )


def _require_supported(kind: type) -> None:
    """Refuse a class whose call cannot be watched, before anything is loaded."""
    refuse_distilled_class(kind.__name__)
    accepted = inspect.signature(kind.__call__).parameters if hasattr(kind, "__call__") else {}  # noqa: B004
    for name in ("prompt", "negative_prompt", "num_inference_steps"):
        if name not in accepted:
            reason = ", so it has no null branch to optimise" if name == "negative_prompt" else ""
            raise InvalidValue(f"{kind.__name__} is not supported: its call has no {name}{reason}")


def _require_call(pipeline: Any, call: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that the pipeline's call does not have, or that a run sets itself."""
    accepted = inspect.signature(type(pipeline).__call__).parameters
    scale = "true_cfg_scale" if "true_cfg_scale" in accepted else "guidance_scale"
    for name in call:
        if name in _RUNS_OWN or name == scale:
            raise InvalidValue("is set by the run itself, not by the model's call", field=name)
        if name not in accepted:
            known = ", ".join(key for key in accepted if key not in _RUNS_OWN and key not in ("self", scale))
            raise InvalidValue(f"is not an argument of {type(pipeline).__name__}'s call: it has {known}", field=name)


def _equipped(model: ObservedModel, tiny_decoder: Any, compiled: bool) -> GuidedModel:
    """The model with its tiny decoder, and its networks compiled, in place."""
    if tiny_decoder is None and model.name == "embedded":
        tiny_decoder = tiny.EMBEDDED
    if tiny_decoder is not None:
        tiny.attach(model, tiny_decoder)
    pipeline = model.pipeline
    vae = getattr(pipeline, "vae", None)
    networks = [*denoisers(pipeline).values(), getattr(vae, "decoder", vae)]
    for network in networks if compiled else ():
        network.compile()
    return model
