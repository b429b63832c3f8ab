"""What a request may ask for: what the model can do, what the operator allows."""

from __future__ import annotations

from typing import Any

from nulltta.errors import NullTTAError
from nulltta.server.errors import APIError
from nulltta.server.jobs import Work
from nulltta.server.offer import Offer
from nulltta.server.schemas import Generation
from nulltta.server.settings import Settings


def check(request: Generation, settings: Settings, size: tuple[int, int]) -> None:
    """Refuse another model or size than the server's, more than is allowed, or a stream of what cannot be streamed.

    Raises:
        APIError: says which.
    """
    if request.model not in (None, settings.name):
        message = f"the model '{request.model}' does not exist: this server's is '{settings.name}'"
        raise APIError(404, message, code="model_not_found", param="model")
    if request.size not in ("auto", size_name(size)):
        raise _invalid("size", f"this model draws {size_name(size)}: ask for that or for 'auto'")
    if request.stream and request.n > 1:
        raise _invalid("n", "a stream brings one image")
    if request.stream and request.response_format == "url":
        raise _invalid("response_format", "a stream brings its image as b64_json")
    _at_most(settings.max_images, "n", request.n)
    for name, text in ("prompt", request.prompt), ("nulltta.negative_prompt", request.nulltta.negative_prompt):
        if len(text) > settings.max_prompt:
            raise _invalid(name, f"{len(text)} characters are too many: at most {settings.max_prompt}")


def check_work(work: Work, settings: Settings, offer: Offer) -> None:
    """Refuse more work than is allowed, and rewards and methods that are not offered.

    Raises:
        APIError: says which.
    """
    config = work.config
    _at_most(settings.max_steps, "nulltta.num_inference_steps", config.num_inference_steps)
    _at_most(settings.max_inner_steps, "nulltta.inner_steps", config.inner_steps[1])
    _at_most(settings.max_candidates, "nulltta.num_particles", config.num_particles)
    _at_most(settings.max_candidates, "nulltta.zeroth_order_samples", config.zeroth_order_samples)
    if work.method not in settings.methods:
        known = ", ".join(settings.methods)
        raise _invalid("nulltta.method", f"'{work.method}' is not offered here: choose among {known}")
    for name, expression in ("reward", work.reward), ("guard", work.guard):
        if expression is not None:
            try:
                offer.check(expression)
            except NullTTAError as error:
                raise _invalid(f"nulltta.{name}", str(error)) from error


def size_name(size: tuple[int, int]) -> str:
    """(512, 768) -> "512x768", width first."""
    return f"{size[0]}x{size[1]}"


def _at_most(limit: int, name: str, value: Any) -> None:
    if value > limit:
        raise _invalid(name, f"at most {limit} here, not {value}")


def _invalid(param: str, message: str) -> APIError:
    return APIError(400, f"'{param}': {message}", code="invalid_value", param=param)
