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


class PictureSize(NamedTuple):
    """The size of the pictures that a model draws.

    Attributes:
        width, height: in pixels, of a frame.
        frames: of a video; 1 for images.
    """

    width: int
    height: int
    frames: int = 1

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        """Of all frames."""
        return self.width * self.height * self.frames


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


def drawn_size(call: CallSettings, own: PictureSize) -> PictureSize:
    """Return the size of the pictures that a call draws; of an uploaded picture only the header is read.

    Args:
        call: what the model's pipeline is to be called with.
        own: the size of the model's own pictures.
    """
    width, height = call.width or own.width, call.height or own.height
    if call.image is not None and not call.width:  # most pipelines then draw in the size of the picture
        width, height = picture_size(call.image)
    return PictureSize(width, height, call.num_frames or own.frames)


def check_call(call: CallSettings, settings: ServerSettings, own: PictureSize) -> None:
    """Check that the images of a request are not too large, of which an uploaded picture may set the size.

    Args:
        call: what the model's pipeline is to be called with.
        settings: the operator's limits.
        own: the size of the model's own pictures.

    Raises:
        APIError: if they have more pixels than is allowed.
    """
    most = settings.max_pixels or 2 * own.pixels
    asked = drawn_size(call, own)
    if asked != own and asked.pixels > most:
        frames = own.frames if call.num_frames is None else 1
        if asked.width * asked.height * frames <= most:
            raise _invalid("nulltta.num_frames", f"this model draws {own}, and at most {most} pixels here")
        if call.image is not None and not call.width:
            found = f"the picture is too large with {asked}: this model draws {own}, and at most {most} pixels here"
            raise _invalid("nulltta.image", found)
        raise _invalid("size", f"this model draws {own}, and at most {most} pixels here")


def _invalid(param: str, message: str) -> APIError:
    return APIError(400, f"'{param}': {message}", code="invalid_value", param=param)
