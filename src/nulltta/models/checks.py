"""What is refused before any work: pipelines whose call cannot be watched, and states in which it shows nothing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch

from nulltta.errors import InvalidValue
from nulltta.models.distilled import refuse_distilled_class
from nulltta.models.recording import DENOISERS, call_parameters, denoisers

_RUNS_OWN = frozenset(
    {
        "prompt", "negative_prompt", "num_inference_steps", "true_cfg_scale", "generator", "latents", "output_type",
        "return_dict", "num_images_per_prompt", "num_videos_per_prompt", "callback_on_step_end", "timesteps", "sigmas",
        "eta",
    }
)  # fmt: skip
"""Arguments of a pipeline's call that a run sets itself."""
_CACHE = re.compile(r"cache|broadcast|fbc_")
"""In the names of the hooks by which diffusers lets a denoiser reuse what it computed at other steps."""


def require_supported(name: str, kind: Any) -> None:
    """Refuse a pipeline class whose call cannot be watched, before anything is loaded.

    Raises:
        InvalidValue: with the reason.
    """
    refuse_distilled_class(name)
    if kind is None:
        raise InvalidValue(f"{name} is not a pipeline of the installed diffusers")
    accepted = call_parameters(kind)
    for argument in ("prompt", "num_inference_steps"):
        if argument not in accepted:
            raise InvalidValue(f"{name} is not supported: its call has no {argument}")
    parts = inspect.signature(kind.__init__).parameters
    if any(part.kind is part.VAR_KEYWORD for part in parts.values()):
        return  # a subclass that passes its parts on
    for purpose, names in {"denoiser": DENOISERS, "scheduler": ("scheduler",), "decoder": ("vae",)}.items():
        if not parts.keys() & set(names):
            raise InvalidValue(f"{name} is not supported: it has no {purpose} ({' or '.join(names)})")


def require_call(pipeline: Any, call: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that the pipeline's call does not have, that a run sets itself, or that are missing.

    Raises:
        InvalidValue: with the reason.
    """
    accepted = call_parameters(type(pipeline))
    scale = "true_cfg_scale" if "true_cfg_scale" in accepted else "guidance_scale"
    if not {"negative_prompt", "negative_prompt_embeds"} & accepted.keys():
        scale = ""  # without a null branch, the scale of guidance is an input of the denoiser
    for name in call:
        if name in _RUNS_OWN or name == scale:
            raise InvalidValue("is set by the run itself, not by the model's call", field=name)
        if name not in accepted:
            known = ", ".join(key for key in accepted if key not in _RUNS_OWN and key not in ("self", scale))
            raise InvalidValue(f"is not an argument of {type(pipeline).__name__}'s call: it has {known}", field=name)
    adapted = [
        name for name, part in denoisers(pipeline).items()
        if getattr(part, "config", {}).get("encoder_hid_dim_type") == "ip_image_proj"
    ]  # fmt: skip
    if adapted and not {"ip_adapter_image", "ip_adapter_image_embeds"} & call.keys():
        raise InvalidValue(
            f"the {adapted[0]} has an IP-Adapter: load_model needs its picture (ip_adapter_image or "
            "ip_adapter_image_embeds), or call the pipeline's unload_ip_adapter() first"
        )


def refuse_unusable(pipeline: Any) -> None:
    """Refuse a pipeline, and a moment, in which nothing can be optimised.

    Raises:
        InvalidValue: inside torch.inference_mode, for weights that were loaded in it, where a denoiser has a cache of
            features, and where an object guides by a rule that may change from step to step.
    """
    refuse_inference_mode()
    guider = getattr(pipeline, "guider", None)
    if guider is not None and not _guides_all_steps_alike(guider):
        raise InvalidValue(
            f"the pipeline's {type(guider).__name__} may guide each step in another way, which two steps do not show: "
            "give it a ClassifierFreeGuidance for all steps, without rescaling (guider)"
        )
    for name, part in denoisers(pipeline).items():
        for module in part.modules():
            hooks = getattr(vars(module).get("_diffusers_hook"), "hooks", {})
            if found := next((hook for hook in hooks if _CACHE.search(hook)), None):
                raise InvalidValue(
                    f"the {name} reuses what it computed at other steps ({found}), so that it does not show what it "
                    f"would predict: call pipeline.{name}.disable_cache() first"
                )
    for name, part in pipeline.components.items():
        weight = next(part.parameters(), None) if isinstance(part, torch.nn.Module) else None
        if weight is not None and weight.is_inference():
            raise InvalidValue(
                f"the {name} was loaded inside torch.inference_mode, so nothing can be optimised with it: load the "
                "pipeline outside"
            )


def _guides_all_steps_alike(guider: Any) -> bool:
    """Return whether a guider of diffusers is plain classifier-free guidance from the first step to the last."""
    return type(guider).__name__ == "ClassifierFreeGuidance" and (
        guider._enabled, guider._start, guider._stop, guider.guidance_rescale, guider.use_original_formulation
    ) == (True, 0.0, 1.0, 0.0, False)  # fmt: skip


def refuse_inference_mode() -> None:
    """Refuse to work where PyTorch records no gradient whatever is asked of it.

    Raises:
        InvalidValue: inside torch.inference_mode.
    """
    if torch.is_inference_mode_enabled():
        raise InvalidValue("inside torch.inference_mode nothing can be optimised: use torch.no_grad instead")
