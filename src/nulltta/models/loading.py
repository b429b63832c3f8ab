"""`load_model`: from a name, a directory, a file, a hub id or a live diffusers pipeline to a `GuidedModel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nulltta.contracts import GuidedModel
from nulltta.devices import usual_device, usual_dtype
from nulltta.embedded.worlds import draws_emoji
from nulltta.errors import InvalidValue, first_line, out_of_memory_as_error
from nulltta.models import tiny
from nulltta.models.checks import refuse_inference_mode, refuse_unusable, require_call, require_supported
from nulltta.models.distilled import refuse_unwatchable
from nulltta.models.observed import ObservedModel
from nulltta.models.offload import in_layers, place, require_known
from nulltta.models.recording import denoisers
from nulltta.models.sources import for_call, load_pipeline
from nulltta.quiet import quiet_libraries

NULLS = ("text", "masked", "zeros", "open")


def load_model(
    source: str | Path | Any,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    null: str | None = None,
    base_model: str | Path | None = None,
    tiny_decoder: str | Path | Any = None,
    compile: bool = False,  # noqa: A002 - torch's word for it
    offload: str = "none",
    **call: Any,
) -> GuidedModel:
    """Load a frozen model to align.

    Args:
        source: "embedded" or "scenes", or either with "-turbo" (distilled to four steps); a diffusers directory, a hub
            id ("org/name"), a single .safetensors file, or a live `DiffusionPipeline`. A live pipeline is left as it
            is: it can be trained, changed or called between two uses of the model. Of a directory or hub id that holds
            half-precision files only, those are read.
        device: default: the GPU if there is one; a live pipeline stays where it is.
        dtype: default: float32 on the CPU, bfloat16 on a GPU that computes in it, float16 on others; a live pipeline
            keeps its own.
        null: the null text to start from: "text", the encoded negative prompt; "zeros", what the pipeline does
            without a negative prompt; "open", the encoded one with its mask opened to the padding ("masked" is
            another word for "text"). See docs/families.md.
        base_model: for a single file, the diffusers directory or hub id of the pipeline that it was made from, whose
            configuration it shares; default: what diffusers infers from the file, fetched from the hub. A component
            that the file does not hold, such as Flux's T5, is read from there.
        tiny_decoder: for `inner_decoder="tiny"`: a directory or hub id of an `AutoencoderTiny` that reads this
            model's latents, such as madebyollin/taesd, or a loaded one. The embedded model has its own.
        compile: compile the denoiser and the decoder, in place (docs/performance.md says when that pays).
        offload: which parts stay away from the device while others work: "none"; "text-encoders", which are there
            while they encode only; "model", every network; "sequential", every layer, which is slowest and needs
            least (docs/performance.md). A live pipeline keeps what its owner enabled.
        call: keyword arguments of the pipeline's own call, passed through unchanged, such as `height`, `width`,
            `num_frames`, `image`, `strength` or `clip_skip`. With `image` or `mask_image`, a model that is loaded by
            name becomes its family's image-to-image or inpainting pipeline.

    Raises:
        InvalidValue: if an argument is wrong, or the pipeline is not supported.
        LoadError: if the model does not load.
        MissingExtra: if a library that it needs is not installed.
        OutOfMemory: if the model does not fit into memory.
    """
    if null is not None and null not in NULLS:
        raise InvalidValue(f"there is no null '{null}': choose one of {', '.join(NULLS)}")
    refuse_inference_mode()
    require_known(offload)
    if isinstance(source, str | Path):
        device = torch.device(device or usual_device())
        dtype = dtype or usual_dtype(device)
        name, base = str(source), None if base_model is None else str(base_model)
        advice = f"load '{name}' in bfloat16 (dtype)", "load it with its parts offloaded (offload)"
        with quiet_libraries(), out_of_memory_as_error(*advice):
            pipeline = for_call(load_pipeline(name, base, dtype), call)
            place(pipeline, device, offload)
            _freeze(pipeline)
    elif not hasattr(source, "components"):
        raise InvalidValue(
            f"a {type(source).__name__} is not a model: give a name, a directory or a diffusers pipeline"
        )
    else:
        if offload != "none":
            raise InvalidValue(
                "is for a pipeline that is loaded here: call the live one's own enable_model_cpu_offload or "
                "enable_sequential_cpu_offload",
                field="offload",
            )
        require_supported(type(source).__name__, type(source))
        pipeline, name = _moved(source, device, dtype), type(source).__name__
    refuse_unwatchable(pipeline)
    require_call(pipeline, call)
    refuse_unusable(pipeline)
    model = ObservedModel(pipeline, name, call, "text" if null in (None, "masked") else null)
    return _equipped(model, tiny_decoder, compile)


def _moved(pipeline: Any, device: str | torch.device | None, dtype: torch.dtype | None) -> Any:
    """The caller's pipeline, moved and cast where that is asked for."""
    if device is None and dtype is None:
        return pipeline
    try:
        return pipeline.to(device=device, dtype=dtype)
    except (ValueError, RuntimeError, NotImplementedError) as error:  # quantised weights keep their dtype
        raise InvalidValue(f"the pipeline does not move to {device or dtype}: {first_line(error)}") from error


def _freeze(pipeline: Any) -> None:
    """Freeze a pipeline of our own for good, so that `Frozen` has nothing left to do, in the layout a GPU prefers."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    unet: Any = getattr(pipeline, "unet", None)
    if unet is not None and unet.device.type == "cuda":
        for network in (unet, pipeline.vae):  # half-precision convolutions are made for it
            network.to(memory_format=torch.channels_last)


def _equipped(model: ObservedModel, tiny_decoder: Any, compiled: bool) -> GuidedModel:
    """The model with its tiny decoder, and its networks compiled, in place."""
    if tiny_decoder is None and draws_emoji(model.name):
        tiny_decoder = tiny.EMBEDDED
    if tiny_decoder is not None:
        tiny.attach(model, tiny_decoder)
    pipeline = model.pipeline
    if any(map(in_layers, denoisers(pipeline).values())):
        model.enable_checkpointing()  # else the backward pass would hold every layer's weights at once
    vae = getattr(pipeline, "vae", None)
    networks = [*denoisers(pipeline).values(), getattr(vae, "decoder", vae)]
    for network in networks if compiled else ():
        network.compile()
    return model
