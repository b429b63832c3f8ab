"""The identity of a model as far as a null text depends on it: pipeline class, denoiser and text encoders.

Weights are compared by sketches: random projections of a sample of them, which keep relative distances. A sketch is the
same, up to a tolerance, in every precision. What cannot be read (a quantised layer, an offloaded weight, a text encoder
that was freed) is left out, and what is left out on either side is unknown, which is not a difference.
"""

from __future__ import annotations

import inspect
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nulltta.contracts import GuidedModel
from nulltta.errors import DoesNotFit
from nulltta.models.recording import denoisers

_SAMPLE, _SUMS = 64, 16  # values read per parameter, and numbers per sketch
_SAME = 0.01
"""How far two sketches of the same weights may be apart, relative to their size: bfloat16 rounds by about 0.002."""
_READABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_SCALED_BY = ("cross_attention_kwargs", "attention_kwargs", "joint_attention_kwargs")
"""Arguments of a pipeline's call whose "scale" multiplies that of every LoRA."""


def identity(model: Any) -> dict[str, Any]:
    """Return the identity of a `GuidedModel` or of a diffusers pipeline, in JSON's types. It never fails.

    Returns:
        "pipeline": the class, of a subclass diffusers' own that it extends. "denoiser": its "kind", and its "config"
        without defaults, names and quantisation, so that fine-tunes of one architecture agree. "text_encoders": by
        name, their "kind". Of each network, sketches of the "weights" and of what a "lora" adds to them at its present
        scale, by the kind of layer. "lora_scale": the factor that a model's call gives every LoRA. Of a model without a
        pipeline, the class alone.
    """
    pipeline = model.pipeline if isinstance(model, GuidedModel) else model
    if pipeline is None:
        return {"pipeline": type(model).__name__}
    found: dict[str, Any] = {"pipeline": _stock_class(type(pipeline))}
    if (denoiser := next(iter(denoisers(pipeline).values()), None)) is not None:
        found["denoiser"] = _described(denoiser) | {"config": _changed_config(denoiser)}
    encoders = sorted(name for name in getattr(pipeline, "components", {}) if name.startswith("text_encoder"))
    found["text_encoders"] = {
        name: _described(encoder) for name in encoders if isinstance(encoder := getattr(pipeline, name), nn.Module)
    }
    options = getattr(getattr(model, "stock", None), "options", None)
    if options is not None:
        found["lora_scale"] = _scale_of_call(options)
    return found


def differences(made_for: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two identities; empty if a null text made for one fits the other.

    A LoRA of the denoiser is accepted, as is a fine-tuned denoiser.
    """
    if made_for.get("pipeline") != here.get("pipeline"):
        return [f"it was made for {made_for.get('pipeline', 'an unknown model')}, this is {here.get('pipeline')}"]
    found = []
    ours, theirs = (_mapping(each, "denoiser") for each in (made_for, here))
    if ours and theirs and (ours.get("kind"), ours.get("config")) != (theirs.get("kind"), theirs.get("config")):
        found.append("the denoiser's configuration differs")
    ours, theirs = (_mapping(each, "text_encoders") for each in (made_for, here))
    with_lora = False
    for name in sorted(ours.keys() & theirs.keys()):
        one, two = _mapping(ours, name), _mapping(theirs, name)
        with_lora |= bool(_known(one, "lora") or _known(two, "lora"))
        if _other_weights(one, two):
            found.append(f"the text encoder differs ({name})")
        elif _other_lora(one, two):
            found.append(f"the text encoder's LoRA or its scale differs ({name})")
    scales = {scale for each in (made_for, here) if isinstance(scale := each.get("lora_scale"), float)}
    if with_lora and len(scales) > 1 and not found:
        found.append("the scale that the call gives the text encoder's LoRA differs")
    return found


def require_fit(about: Mapping[str, Any], model: Any) -> None:
    """Refuse a model or pipeline for which a null text was not made.

    Args:
        about: what the null text says of how it was made.
        model: a `GuidedModel` or a diffusers pipeline.

    Raises:
        DoesNotFit: if it was made for another; the message names every difference.
    """
    if found := differences(about.get("model", {}), identity(model)):
        raise DoesNotFit(f"the null text does not fit this model: {'; '.join(found)}")


def require_same_denoiser(about: Mapping[str, Any], model: Any) -> None:
    """Refuse to replay exactly on another denoiser than the one that a null text was made with.

    Under other noise such a null text is accepted: see `differences`.

    Args:
        about: what the null text says of how it was made.
        model: a `GuidedModel` or a diffusers pipeline.

    Raises:
        DoesNotFit: if the denoiser has other weights or another LoRA; the message names the model.
    """
    one, two = (_mapping(each, "denoiser") for each in (_mapping(about, "model"), identity(model)))
    if one and two and (_other_weights(one, two) or _other_lora(one, two)):
        raise DoesNotFit(
            f"the null text was made with {about.get('model_name', 'another model')} and replays exactly only there: "
            "this denoiser has other weights, or another LoRA"
        )


def _stock_class(kind: type) -> str:
    """Return the name of the first class, upwards from `kind`, that is diffusers' own."""
    return next((base.__name__ for base in kind.__mro__ if base.__module__.startswith("diffusers.")), kind.__name__)


def _described(module: Any) -> dict[str, Any]:
    """Return a network's class and sketches; the class alone where something about it cannot be read."""
    plain = getattr(module, "_orig_mod", module)  # what torch.compile wrapped
    found: dict[str, Any] = {"kind": type(plain).__name__}
    try:
        sketches = {"weights": _weights(plain), "lora": _lora(plain)}
    except Exception:  # whatever a third party's layers do, a description must not end a run
        return found
    return found | {name: sketch for name, sketch in sketches.items() if sketch}


def _changed_config(denoiser: Any) -> dict[str, Any]:
    """Return a denoiser's configuration where it is not the default, in JSON's types."""
    plain = getattr(denoiser, "_orig_mod", denoiser)
    defaults = {name: each.default for name, each in inspect.signature(type(plain).__init__).parameters.items()}
    config = {
        name: value
        for name, value in dict(getattr(plain, "config", {})).items()
        if not name.startswith("_") and name != "quantization_config"
    }

    def as_json(value: Any) -> str:
        return json.dumps(value, sort_keys=True, default=str)

    changed = {k: v for k, v in config.items() if k not in defaults or as_json(v) != as_json(defaults[k])}
    found: dict[str, Any] = json.loads(as_json(changed))
    return found


def _weights(module: nn.Module) -> dict[str, list[float]]:
    """Return sketches of a network's weights without adapters, by the kind of layer, if all of a kind are read."""
    weights: dict[str, list[Tensor]] = defaultdict(list)
    unread = set()
    for name, parameter in sorted(module.named_parameters(), key=lambda item: item[0].replace(".base_layer", "")):
        if ".lora_" in name:
            continue
        kind, values = _kind_of_layer(name), parameter.detach()
        if type(values) is not Tensor or values.dtype not in _READABLE or values.device.type == "meta":
            unread.add(kind)
        else:
            weights[kind].append(values)
    return {kind: _sketch(tensors) for kind, tensors in weights.items() if kind not in unread}


def _lora(module: nn.Module) -> dict[str, list[float]]:
    """Return sketches of what LoRA adds to a network's weights, by the kind of layer, where it adds something."""
    lora: dict[str, list[Tensor]] = defaultdict(list)
    for name, change in _changes(module):
        lora[_kind_of_layer(f"{name}.weight")].append(change)
    return {kind: sketch for kind, tensors in lora.items() if any(sketch := _sketch(tensors))}


def _kind_of_layer(name: str) -> str:
    """ "text_model.encoder.layers.3.self_attn.q_proj.base_layer.weight" -> "q_proj.weight"."""
    parts = [part for part in name.split(".") if part not in ("_orig_mod", "base_layer") and not part.isdigit()]
    return ".".join(parts[-2:])


def _changes(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What each of peft's layers adds to the first rows of its weight: the names of the layers and (4, in)."""
    for name, layer in sorted(module.named_modules()):
        scaling, down, up = (getattr(layer, each, None) for each in ("scaling", "lora_A", "lora_B"))
        if not isinstance(scaling, dict) or not isinstance(down, nn.ModuleDict) or not isinstance(up, nn.ModuleDict):
            continue
        if getattr(layer, "merged", False) or getattr(layer, "disable_adapters", False):
            continue
        active = [each for each in getattr(layer, "active_adapters", down) if each in down and each in up]
        parts = [
            float(scaling[each]) * (_matrix(up[each])[:4] @ _matrix(down[each])) for each in active if each in scaling
        ]
        if parts:
            yield name, torch.stack(parts).sum(0)


def _matrix(layer: Any) -> Tensor:
    weight: Tensor = layer.weight
    return weight.detach().float().flatten(1)


def _sketch(tensors: Sequence[Tensor]) -> list[float]:
    """Return sums of the first values of tensors, with weights that look random."""
    values = torch.zeros(len(tensors), _SAMPLE, dtype=torch.float64)
    for row, tensor in zip(values, tensors, strict=True):
        part = tensor.flatten()[:_SAMPLE].cpu().double()
        row[: len(part)] = part
    mixing = torch.cos(torch.arange(values.numel(), dtype=torch.float64).square()).reshape(values.shape)
    sums = (values * mixing).reshape(len(tensors), _SUMS, -1).sum((0, 2))
    return [float(f"{each:.5g}") for each in sums.tolist()]


def _scale_of_call(options: Mapping[str, Any]) -> float:
    scales = [options[name].get("scale") for name in _SCALED_BY if isinstance(options.get(name), Mapping)]
    return next((float(scale) for scale in scales if isinstance(scale, int | float)), 1.0)


def _other_weights(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two text encoders differ in a layer that is known of both, or, where none is, in their class."""
    one, two = (_known(each, "weights") for each in (ours, theirs))
    if not (both := one.keys() & two.keys()):
        return bool(one and two) and ours.get("kind") != theirs.get("kind")
    return any(_apart(one[kind], two[kind]) for kind in both)


def _other_lora(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    one, two = (_known(each, "lora") for each in (ours, theirs))
    none = [0.0] * _SUMS
    return any(_apart(one.get(kind, none), two.get(kind, none)) for kind in one.keys() | two.keys())


def _apart(one: Sequence[float], two: Sequence[float]) -> bool:
    a, b = (torch.tensor(each, dtype=torch.float64) for each in (one, two))
    return float((a - b).norm()) > _SAME * float(max(a.norm(), b.norm()))


def _known(encoder: Mapping[str, Any], name: str) -> dict[str, list[float]]:
    """Return the sketches in a description that are what this version writes."""
    return {
        kind: sketch
        for kind, sketch in _mapping(encoder, name).items()
        if isinstance(sketch, list) and len(sketch) == _SUMS and all(isinstance(each, int | float) for each in sketch)
    }


def _mapping(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of an identity; empty where it is not known, or where an earlier version wrote a hash."""
    part = owner.get(name)
    return part if isinstance(part, Mapping) else {}
