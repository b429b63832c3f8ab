"""Checks of a request against the model and the operator's limits."""

from __future__ import annotations

from typing import NamedTuple

from nulltta.config import NullTTAConfig
from nulltta.errors import NullTTAError
from nulltta.runs.call import CallSettings, picture_size
from nulltta.server.errors import APIError
from nulltta.server.jobs import JobSettings
from nulltta.server.rewards import LoadedRewards
from nulltta.server.schemas import GenerationRequest
from nulltta.server.settings import ServerSettings


class Excess(NamedTuple):
    """A field of `NullTTAConfig` whose value is above the limit that a setting of the operator's sets."""

    field: str
    value: int
    setting: str
    limit: int


def above_limits(config: NullTTAConfig, settings: ServerSettings) -> Excess | None:
    """Return the first field of a configuration that asks for more work than is allowed."""
    for field, value, setting in (
        ("num_inference_steps", config.num_inference_steps, "max_steps"),
        ("inner_steps", config.inner_steps[1], "max_inner_steps"),
        ("num_particles", config.num_particles, "max_candidates"),
        ("zeroth_order_samples", config.zeroth_order_samples, "max_candidates"),
    ):
        if value > (limit := getattr(settings, setting)):
            return Excess(field, value, setting, limit)
    return None


def check_request(request: GenerationRequest, settings: ServerSettings) -> None:
    """Check everything in a request but its sampling settings.

    Raises:
        APIError: if the request names another model, asks for more than is allowed, combines options that do not go
            together or, on a strict server, gives a value that has no effect.
    """
    if request.model is not None:
        require_model(request.model, settings)
    if settings.strict and request.style is not None:
        raise APIError(400, "unknown parameter 'style'", code="unknown_parameter", param="style")
    if settings.strict and request.quality != "auto":
        raise _invalid("quality", "it has no effect here: leave it out, or give 'auto'")
    if request.stream and request.n > 1:
        raise _invalid("n", "a stream has one image")
    if request.stream and request.response_format == "url":
        raise _invalid("response_format", "a stream sends its image as b64_json")
    if request.n > settings.max_images:
        raise _invalid("n", f"at most {settings.max_images} here, not {request.n}")
    for name, text in ("prompt", request.prompt), ("nulltta.negative_prompt", request.nulltta.negative_prompt):
        if len(text) > settings.max_prompt:
            raise _invalid(name, f"{len(text)} characters are too many: at most {settings.max_prompt}")


def require_model(name: str, settings: ServerSettings) -> None:
    """Check that a name is one of the model's.

    Raises:
        APIError: if it is not.
    """
    if name not in settings.names:
        message = f"the model '{name}' does not exist: this server's model is '{settings.name}'"
        raise APIError(404, message, code="model_not_found", param="model")


def check_job_settings(job: JobSettings, settings: ServerSettings, rewards: LoadedRewards) -> None:
    """Check the sampling settings of a request.

    Raises:
        APIError: if they ask for more work than is allowed, or for a reward or method that is not offered.
    """
    if (excess := above_limits(job.config, settings)) is not None:
        raise _invalid(f"nulltta.{excess.field}", f"at most {excess.limit} here, not {excess.value}")
    if job.method not in settings.methods:
        known = ", ".join(settings.methods)
        raise _invalid("nulltta.method", f"'{job.method}' is not offered here: choose among {known}")
    try:
        rewards.check(job.reward)
    except NullTTAError as error:
        raise _invalid("nulltta.reward", str(error)) from error


def check_call(call: CallSettings, settings: ServerSettings, size: tuple[int, int]) -> None:
    """Check that the images of a request are not too large, of which an uploaded picture may set the size.

    Args:
        call: what the model's pipeline is to be called with.
        settings: the operator's limits.
        size: (width, height) of the model's own images.

    Raises:
        APIError: if they have more pixels than is allowed.
    """
    own, frames = size[0] * size[1], call.num_frames or 1
    most = settings.max_pixels or 2 * own
    width, height = call.width or size[0], call.height or size[1]
    if started := call.image is not None and not call.width:  # most pipelines then draw in the size of the picture
        width, height = picture_size(call.image or b"")
    asked = width * height
    if (call.width or call.num_frames or started) and asked * frames > most:
        blamed = "nulltta.num_frames" if asked <= most else "nulltta.image" if started else "size"
        found = f"the picture is too large with {size_name((width, height))}: " if blamed == "nulltta.image" else ""
        raise _invalid(blamed, f"{found}this model draws {size_name(size)}, and at most {most} pixels here")


def size_name(size: tuple[int, int]) -> str:
    """Format (512, 768) as "512x768", width first."""
    return f"{size[0]}x{size[1]}"


def _invalid(param: str, message: str) -> APIError:
    return APIError(400, f"'{param}': {message}", code="invalid_value", param=param)
