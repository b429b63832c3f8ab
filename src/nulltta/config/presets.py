"""Which settings a family of models starts from, by the class of its pipeline.

Beside the published settings, the embedded model's and those of few steps, a preset takes the number of steps and the
scale of guidance that diffusers gives the family's pipeline by default, the published inner steps per denoising step,
and an annealing that takes the published course within that number of steps. Only the embedded model's was tuned on
trained weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nulltta import hub
from nulltta.errors import InvalidValue

STOCK: Mapping[str, tuple[str, int, float]] = {
    "sdxl": ("StableDiffusionXL", 50, 5.0),
    "kolors": ("Kolors", 50, 5.0),
    "sd3": ("StableDiffusion3", 28, 7.0),
    "pixart": ("PixArt", 20, 4.5),
    "sana": ("Sana", 20, 4.5),
    "flux": ("Flux", 28, 4.0),  # under true guidance, which diffusers leaves off by default
    "qwen-image": ("QwenImage", 50, 4.0),
    "auraflow": ("AuraFlow", 50, 3.5),
    "cogview3": ("CogView3Plus", 50, 5.0),
    "cogview4": ("CogView4", 50, 5.0),
    "hunyuan-dit": ("HunyuanDiT", 50, 5.0),
    "hidream": ("HiDreamImage", 50, 5.0),
    "lumina2": ("Lumina2", 30, 4.0),
    "chroma": ("Chroma", 35, 5.0),
    "z-image": ("ZImage", 50, 5.0),
    "bria": ("Bria", 30, 5.0),
    "kandinsky5": ("Kandinsky5T2I", 50, 3.5),
    "wan": ("Wan", 50, 5.0),
    "ltx": ("LTX", 50, 3.0),
    "cogvideox": ("CogVideoX", 50, 6.0),
    "mochi": ("Mochi", 64, 4.5),
}
"""What the class of a family's pipelines begins with, its steps and its scale of guidance, by the preset's name."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    # Keeps the published balance of reward and regularisers and takes long inner steps in the last third of the
    # denoising steps, where a third of the evaluations reach the reward of optimising at every step
    # (studies/frontier.py).
    "embedded": {
        "num_inference_steps": 25, "guidance_scale": 3.0, "optimise_between": (0.66, 1.0), "inner_steps": (3, 8),
        "learning_rate": 0.025, "num_particles": 3, "annealing": "auto",
    },
    **{
        name: {"num_inference_steps": steps, "guidance_scale": scale, "annealing": "auto"}
        for name, (_, steps, scale) in STOCK.items()
    },
    # For models that were distilled to few steps without guidance: a null text inside attention that starts at the
    # prompt, so that there is no guidance before it moves, the model's own noise where it draws any, and about the
    # published number of inner steps at each of the fewer denoising steps.
    **{
        f"{steps}-step": {
            "num_inference_steps": steps, "guidance": "nag", "nag_null": "prompt", "eta": "auto",
            "conventions": "exact", "inner_steps": counts, "annealing": "auto",
        }
        for steps, counts in ((1, (25, 25)), (2, (15, 25)), (4, (10, 25)), (8, (5, 25)))
    },
    # The embedded models distilled to four steps, which have no null branch.
    "embedded-turbo": {
        "num_inference_steps": 4, "guidance": "nag", "nag_null": "prompt", "eta": "auto", "conventions": "exact",
        "inner_steps": (3, 8), "learning_rate": 0.025, "num_particles": 3, "annealing": "auto",
    },
}  # fmt: skip
"""The fields of `NullTTAConfig` that differ from its defaults, by the preset's name."""


def require_preset(name: str) -> None:
    """Check that there is a preset of that name.

    Raises:
        InvalidValue: if there is none.
    """
    if name not in PRESETS:
        raise InvalidValue(f"must be one of {', '.join(PRESETS)}, not {name!r}", field="preset")


def preset_name(model: str) -> str:
    """Return the name of the preset that suits a model.

    Args:
        model: the name of a preset, a pipeline's class, a diffusers directory or a hub id.

    Returns:
        The name; "paper" for Stable Diffusion 1.x and 2.x and for what is not known.
    """
    if model in ("scenes", "scenes-turbo"):  # of the same kind and size as the embedded model
        return model.replace("scenes", "embedded")
    if model in PRESETS:
        return model
    family = _family(model)
    return next((name for name, (start, *_) in STOCK.items() if family.startswith(start)), "paper")


def _family(model: str) -> str:
    """Return the class of a model's pipeline, as its index names it; the model itself if it has no index."""
    index: str | Path = Path(model) / "model_index.json"
    if not Path(index).is_file():
        if not hub.is_hub_id(model):
            return model
        index = _downloaded(model)
    try:
        return str(json.loads(Path(index).read_text())["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):  # loading the model says what is wrong with it
        return ""


def _downloaded(repository: str) -> str:
    """Return where the index of a hub's model is, fetched if it is not there yet; "" if there is none.

    Once the model was loaded, the hub is not asked again: a server would ask it for every request.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    for is_local in (True, False):
        with suppress(OSError, ValueError, HfHubHTTPError, HFValidationError):
            if is_local or hub.reachable():
                return str(hf_hub_download(repository, "model_index.json", local_files_only=is_local))
    return ""
