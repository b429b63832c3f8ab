"""What the operator decides. Free of torch and FastAPI, so that mistakes are told before anything is loaded."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from nulltta.config import number, whole
from nulltta.errors import InvalidValue


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the server goes by. Errors: `NullTTAError` names what is wrong.

    Attributes:
        rewards: what a request may name, alone or in a sum; the first is what it gets if it names none. () for
            every reward that needs no download.
        methods: the same of `nulltta.alignment.METHODS`.
        keys: any of them opens the API; none leaves it open, which only a loopback address may be.
        name: of the model, as clients call it.
        public_url: where clients reach the server, for `response_format: "url"`; None for the host they asked.
        max_images: n at most, of one request.
        batch_size: images sampled at a time, at least `max_images`.
        batch_wait: seconds that an idle worker waits for company after a first request.
        queue_size: requests that wait at most; the next is told to come back.
        max_prompt: characters of a prompt and of a negative prompt.
        max_body: bytes of a request.
        max_steps, max_inner_steps, max_candidates: of the configuration's num_inference_steps, inner_steps, and
            num_particles and zeroth_order_samples.
        max_terms: rewards in one expression.
        timeout: seconds that a request may take, waiting included.
        grace: seconds that requests in progress get when the server is told to stop.
        url_lifetime, max_urls: seconds that a picture's URL lives; pictures kept at most.
        log_prompts: whether logs may quote prompts.
    """

    rewards: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("null-tta", "plain")
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = field(default=(), repr=False)
    name: str = "embedded"
    public_url: str | None = None
    max_images: int = 4
    batch_size: int = 8
    batch_wait: float = 0.02
    queue_size: int = 32
    max_prompt: int = 2000
    max_body: int = 65536
    max_steps: int = 100
    max_inner_steps: int = 50
    max_candidates: int = 8
    max_terms: int = 8
    timeout: float = 600.0
    grace: float = 30.0
    url_lifetime: float = 3600.0
    max_urls: int = 1000
    log_prompts: bool = False

    def __post_init__(self) -> None:
        for name in (
            "max_images", "batch_size", "queue_size", "max_prompt", "max_body", "max_steps", "max_inner_steps",
            "max_candidates", "max_terms", "max_urls",
        ):  # fmt: skip
            whole(self, name, at_least=1)
        for name in ("batch_wait", "timeout", "grace", "url_lifetime"):
            number(self, name)
        if self.timeout == 0:
            raise InvalidValue("timeout must be above 0 seconds")
        if not 0 <= self.port <= 65535:
            raise InvalidValue(f"port must lie between 0 and 65535, not {self.port}")
        if self.batch_size < self.max_images:
            raise InvalidValue(
                f"batch_size {self.batch_size} is below max_images {self.max_images}: a request's images are sampled "
                "together"
            )
        if not self.methods:
            raise InvalidValue("the server must offer at least one method")
        if not self.keys and not is_loopback(self.host):
            raise InvalidValue(
                f"refusing to listen on {self.host} without an API key: set NULLTTA_API_KEY or give --api-key-file, "
                "or listen on 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; of names, "localhost" alone is known to be so."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
