"""What shows that a model was distilled to run without classifier-free guidance, so that its null branch is void.

This is where names stand. Observation cannot tell: the stock call of such a model may still evaluate two branches, and
what they mean to it was decided in its training. Such a model is guided inside attention (`nag`), or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nulltta.errors import InvalidValue
from nulltta.models.recording import denoisers

_NAMES = re.compile(
    r"turbo|lightning|hyper[-_]?sd|schnell|sprint|(?<!de)(?<!de[-_])distill|(?<![a-z])(lcm|tcd|dmd2?)(?![a-z])", re.I
)
_CLASSES: Mapping[str, str] = {
    "SanaSprintPipeline": "it is guidance-distilled",
    "SanaSprintImg2ImgPipeline": "it is guidance-distilled",
}
_SCHEDULERS = ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler")


def refuse_distilled_class(family: str) -> None:
    """Refuse a pipeline class made for distilled models.

    Raises:
        InvalidValue: with the reason.
    """
    if family in _CLASSES:
        raise InvalidValue(f"{family} is not supported: {_CLASSES[family]}, so there is no null branch to optimise")


def refuse_unwatchable(pipeline: Any) -> None:
    """Refuse a pipeline without a denoiser or a scheduler, or of a class that is not supported.

    Raises:
        InvalidValue: with the reason.
    """
    refuse_distilled_class(type(pipeline).__name__)
    part, scheduler = next(iter(denoisers(pipeline).values()), None), getattr(pipeline, "scheduler", None)
    if part is None or scheduler is None:
        missing = "denoiser (unet, transformer)" if part is None else "scheduler"
        raise InvalidValue(f"{type(pipeline).__name__} is not supported: it has no {missing}")


def reason(pipeline: Any) -> str | None:
    """Return what shows that a model is guidance-distilled, or None. One that shows it nowhere passes for another."""
    config = getattr(next(iter(denoisers(pipeline).values())), "config", {})
    names = [str(each.get("_name_or_path") or "").rstrip("/").rsplit("/", 1)[-1] for each in (pipeline.config, config)]
    scheduler = pipeline.scheduler
    if dict(pipeline.config).get("is_distilled"):
        return "is_distilled"
    return _reason(type(pipeline).__name__, type(scheduler).__name__, scheduler.config, config, names)


def _reason(family: str, scheduler: str, levels: Any, config: Any, names: list[str]) -> str | None:
    if scheduler in _SCHEDULERS:
        return f"its scheduler is {scheduler}"
    if config.get("time_cond_proj_dim") is not None:
        return "its denoiser takes the guidance scale as an input"
    if found := _NAMES.search("\n".join(names)):
        return f"its name says '{found.group()}'"
    if family == "FluxPipeline" and not config.get("guidance_embeds") and not levels.get("use_dynamic_shifting"):
        return "a Flux without guidance input and without shifted noise levels is schnell"
    if family == "QwenImagePipeline" and config.get("guidance_embeds"):
        return "guidance_embeds"
    return None
