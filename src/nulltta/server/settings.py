"""The operator's settings. This module imports neither torch nor FastAPI, so that mistakes are reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nulltta.config import number, whole
from nulltta.errors import InvalidValue
from nulltta.runs.network import is_loopback


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Everything that the operator of a server decides.

    Attributes:
        rewards: the rewards that requests may use, alone or in a sum; the first is the default. () for every reward
            that needs no download.
        methods: the methods that requests may use, out of `nulltta.alignment.METHODS`; the first is the default.
        start: the file of a null text from which every request starts; the method "plain" samples under it.
        host: the address to listen on. Without keys it must be a loopback address.
        port: the port to listen on; 0 for any free one.
        keys: the API keys; () for a server without authentication.
        key_file: the file that the keys came from, which is read again when it changes; None for none.
        name: the name of the model, as clients call it.
        aliases: further names of the model, such as "dall-e-3" for clients that know no other.
        defaults: the values of fields of `NullTTAConfig` for requests that do not give them; fields without one have
            the value of the model's preset.
        strict: whether values of OpenAI's fields that have no effect here are refused instead of ignored.
        cors_origins: the origins, such as "https://app.example", whose pages may use the server; "*" for all.
        allowed_hosts: host names that a server without keys answers to beside loopback addresses.
        public_url: where clients reach the server, for `response_format: "url"`; None for the host they addressed.
        image_folder: where images that are fetched by URL are kept, so that they outlive the process; None for a
            temporary folder.
        max_images: the largest `n` of a request.
        batch_size: the largest number of images that are sampled together, at least `max_images`.
        batch_wait: the seconds that an idle worker waits for more requests after a first one.
        queue_size: the largest number of waiting requests; further ones are told to come back.
        max_prompt: the largest number of characters in a prompt and in a negative prompt.
        max_body: the largest number of bytes in the body of a request.
        max_upload: the same for requests with a picture, `/v1/images/edits`.
        max_steps: the largest `num_inference_steps`.
        max_inner_steps: the largest number of `inner_steps`.
        max_candidates: the largest `num_particles` and `zeroth_order_samples`.
        max_terms: the largest number of rewards in one expression.
        max_pixels: the largest number of pixels of an image, or of all frames of a video; None for twice those of
            the model's own size.
        timeout: the seconds that a request may take, waiting included.
        stall: the seconds without an evaluation of the model after which a batch counts as hung: the server is then
            not ready, and after twice as many not alive.
        grace: the seconds that requests in progress get when the server is told to stop.
        url_lifetime: the seconds for which an image can be fetched by URL.
        max_urls: the largest number of images that are kept for fetching by URL.
        log_prompts: whether logs may quote prompts.
        otlp_endpoint: where traces are sent by OTLP over HTTP, such as "http://localhost:4318"; None for where
            OpenTelemetry's environment variables say, if anywhere.

    Raises:
        InvalidValue: if a setting is out of range, with the setting's name as its field.
    """

    rewards: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("null-tta", "plain")
    start: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = field(default=(), repr=False)
    key_file: Path | None = None
    name: str = "embedded"
    aliases: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    public_url: str | None = None
    image_folder: Path | None = None
    max_images: int = 10
    batch_size: int = 10
    batch_wait: float = 0.02
    queue_size: int = 32
    max_prompt: int = 2000
    max_body: int = 65536
    max_upload: int = 16 << 20
    max_steps: int = 100
    max_inner_steps: int = 50
    max_candidates: int = 8
    max_terms: int = 8
    max_pixels: int | None = None
    timeout: float = 600.0
    stall: float = 300.0
    grace: float = 30.0
    url_lifetime: float = 3600.0
    max_urls: int = 1000
    log_prompts: bool = False
    otlp_endpoint: str | None = None

    def __post_init__(self) -> None:
        for name in (
            "max_images", "batch_size", "queue_size", "max_prompt", "max_body", "max_steps", "max_inner_steps",
            "max_candidates", "max_terms", "max_urls", "max_upload",
        ):  # fmt: skip
            whole(self, name, at_least=1)
        if self.max_pixels is not None:
            whole(self, "max_pixels", at_least=1)
        for name in ("batch_wait", "timeout", "stall", "grace", "url_lifetime"):
            number(self, name, positive=name in ("timeout", "stall"))
        if not 0 <= self.port <= 65535:
            raise InvalidValue(f"must lie between 0 and 65535, not {self.port}", field="port")
        if self.batch_size < self.max_images:
            raise InvalidValue(
                f"must be at least the largest number of images per request (max_images {self.max_images}), which are "
                f"sampled together, not {self.batch_size}",
                field="batch_size",
            )
        for name in ("public_url", "otlp_endpoint"):
            if (address := getattr(self, name)) is not None and not _is_web_address(address):
                raise InvalidValue(f"must begin with http:// or https:// and a host, not {address!r}", name)
        for name in ("cors_origins", "allowed_hosts", "aliases"):
            if any(not text.strip() for text in getattr(self, name)):
                raise InvalidValue("must not be empty", field=name)
        if not self.methods:
            raise InvalidValue("must name at least one method", field="methods")
        if not self.keys and not is_loopback(self.host):
            raise InvalidValue(
                f"must be a loopback address such as 127.0.0.1 without an API key, not {self.host!r}: set "
                "NULLTTA_API_KEY or give a file of keys (--api-key-file) to listen there",
                field="host",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the model."""
        return (self.name, *self.aliases)


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
