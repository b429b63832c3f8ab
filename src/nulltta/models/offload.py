"""Keeping on a GPU only those parts of a pipeline that are at work, by diffusers' own offloading."""

from __future__ import annotations

from typing import Any

import torch

from nulltta.errors import InvalidValue

OFFLOADS = ("none", "text-encoders", "model", "sequential")
"""What can be asked for, from the fastest to the one that needs least memory."""


def require_known(offload: str) -> None:
    """Refuse what is not one of `OFFLOADS`.

    Raises:
        InvalidValue: if it is not.
    """
    if offload not in OFFLOADS:
        raise InvalidValue(f"must be one of {', '.join(OFFLOADS)}, not {offload!r}", field="offload")


def place(pipeline: Any, device: torch.device, offload: str = "none") -> None:
    """Put a pipeline on a device, whole or part by part as it is needed.

    Args:
        pipeline: the pipeline; it keeps its hooks, so that its own calls offload too.
        device: where its networks compute.
        offload: "none" for the whole pipeline at once; "text-encoders" to have them there while they encode only;
            "model" to have each network there while it computes (`enable_model_cpu_offload`); "sequential" to have
            each layer there while it computes (`enable_sequential_cpu_offload`).
    """
    if offload == "none":
        pipeline.to(device)
        return
    networks = [name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)]
    if offload == "sequential" and device.type == "cpu":
        from accelerate import cpu_offload

        for name in networks:  # diffusers would ask for the device "cpu:0", which torch does not take for "cpu"
            cpu_offload(getattr(pipeline, name), device, offload_buffers=bool(getattr(pipeline, name)._parameters))
        return
    if offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
        return
    if offload == "text-encoders":
        encoders = [name for name in networks if name.startswith("text_encoder")]
        pipeline.model_cpu_offload_seq = "->".join(encoders)
        pipeline._exclude_from_cpu_offload = [name for name in networks if name not in encoders]
    pipeline.enable_model_cpu_offload(device=device)


def set_aside(pipeline: Any) -> None:
    """Take every network that was offloaded off the device again, after a call that was ended early."""
    for hook in getattr(pipeline, "_all_hooks", None) or ():
        hook.offload()


def in_layers(network: torch.nn.Module) -> bool:
    """Return whether the network's weights are away until a layer computes."""
    return any(weight.device.type == "meta" for weight in network.parameters())


def state_of(network: Any) -> dict[str, Any]:
    """Return a network's state dictionary, also where its weights are away."""
    if not in_layers(network):
        found: dict[str, Any] = network.state_dict()
        return found
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    return dict(get_state_dict_offloaded_model(network))
