"""The engine for several GPUs or machines: Ray Serve, with a whole server a GPU or a share of the CPUs."""

from __future__ import annotations

import logging
import re
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue
from nulltta.runs.ray import connect, first_line, machines, require_ray, shares
from nulltta.server import logs
from nulltta.server.app import create_app
from nulltta.server.engine import Engine
from nulltta.server.pictures import Pictures
from nulltta.server.run import address, listen
from nulltta.server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "nulltta"  # of Serve's application
QUICK = 16  # requests of a replica beside those that wait or are sampled: probes, pictures, what is turned away
LOGGING = {"enable_access_log": False}  # it would tell the names of pictures
REASON = re.compile(r"NullTTAError: (.+)")


@dataclass(frozen=True)
class OnRay:
    """Serves from a Ray cluster, until SIGTERM or Ctrl-C.

    address: as of `nulltta.runs.ray.connect`.
    replicas: at least and at most, by how many requests there are; None for one a GPU or, without any, one a machine.
    device: what the model was asked to run on.
    """

    address: str | None = None
    replicas: tuple[int, int] | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.replicas is not None and not 1 <= self.replicas[0] <= self.replicas[1]:
            raise InvalidValue(f"--replicas is MIN MAX, 1 <= MIN <= MAX, not {self.replicas[0]} {self.replicas[1]}")

    def __call__(self, settings: Settings, load: Callable[[], GuidedModel]) -> None:
        """load: gives the model, in every replica anew.

        Raises:
            NullTTAError: the model or a reward does not load, the address cannot be listened on, Ray is not installed,
                no cluster answers, or Ray Serve runs there already.
        """
        ray = require_ray("serve")
        with listen(settings.host, settings.port) as listener:  # a taken port is told at once, and 0 becomes a free one
            port = listener.getsockname()[1]
        connect(ray, self.address)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # after Ray has set its own
        try:
            with redirect_stdout(sys.stderr):  # where Ray says what it ended
                self._run(ray, settings, load, port)
        except ray.exceptions.RayError as error:
            raise InvalidValue(f"Ray failed: {first_line(error)}") from error
        finally:
            ray.shutdown()

    def _run(self, ray: Any, settings: Settings, load: Callable[[], GuidedModel], port: int) -> None:
        _require_unused(ray.serve)
        logs.set_up(quote=settings.log_prompts)
        pictures = ray.remote(num_cpus=0)(Pictures).remote(settings.url_lifetime, settings.max_urls)
        try:
            ray.serve.start(
                proxy_location="HeadOnly", http_options={"host": settings.host, "port": port}, logging_config=LOGGING
            )
            _deploy(ray.serve, self._deployment(ray, settings).bind(settings, load, pictures))
            where = address(settings.host, port)
            logs.write("listening", address=where, model=settings.name, key_needed=bool(settings.keys))
            signal.pause()
        except KeyboardInterrupt:
            logs.write("stopping", grace=settings.grace)
        finally:
            _stop(ray.serve)
            ray.get(pictures.close.remote())
        logs.write("stopped")

    def _deployment(self, ray: Any, settings: Settings) -> Any:
        """A batch of requests a replica is what Serve scales for; one that is full says so itself."""
        most, share = shares(machines(ray), self.replicas and self.replicas[1], self.device)
        least = self.replicas[0] if self.replicas else most
        return ray.serve.deployment(
            ray.serve.ingress()(Replica),
            name=NAME,
            ray_actor_options=share,
            autoscaling_config={
                "min_replicas": least, "max_replicas": most, "target_ongoing_requests": settings.batch_size,
            },
            max_ongoing_requests=settings.queue_size + settings.batch_size + QUICK,
            max_constructor_retry_count=1,  # a mistake does not get better
            graceful_shutdown_timeout_s=settings.grace,
            logging_config=LOGGING,
        )  # fmt: skip


class Replica:
    """A server as Serve wants it: it is made, asked for its application, and asked how it is."""

    def __init__(self, settings: Settings, load: Callable[[], GuidedModel], pictures: Any) -> None:
        logs.set_up(quote=settings.log_prompts)
        self.engine, self.pictures = Engine(load(), settings), SharedPictures(pictures)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.engine, self.pictures)

    def check_health(self) -> None:
        """Serve replaces a replica for which this raises."""
        if not self.engine.worker.is_alive():
            raise RuntimeError("the worker has stopped")


class SharedPictures:
    """`Pictures` in an actor: a picture is found by whichever replica is asked for it."""

    def __init__(self, actor: Any) -> None:
        import ray

        self.actor, self._wait_for = actor, ray.get

    def add(self, png: bytes) -> str:
        name: str = self._wait_for(self.actor.add.remote(png))
        return name

    def find(self, name: str) -> bytes | None:
        found: bytes | None = self._wait_for(self.actor.find.remote(name))
        return found

    def sweep(self) -> None:
        self._wait_for(self.actor.sweep.remote())

    def close(self) -> None:
        """A replica that ends leaves them to the others."""


def _require_unused(serve: Any) -> None:
    """Serve listens at one address, whoever chose it."""
    status = serve.status()
    if status.proxies or status.applications:
        raise InvalidValue(
            "Ray Serve runs on that cluster already: end it with 'serve shutdown', or give another cluster"
        )


def _deploy(serve: Any, application: Any) -> None:
    """Until all replicas are there."""
    try:
        serve.run(application, name=NAME, route_prefix="/")
    except RuntimeError as error:
        said = serve.status().applications[NAME].deployments[NAME].message  # with the traceback of a replica
        reason = REASON.search(said)
        raise InvalidValue(reason[1] if reason else f"Ray failed: {first_line(error)}") from error


def _stop(serve: Any) -> None:
    """Give requests in progress their grace, and end Serve."""
    while NAME in serve.status().applications:
        with suppress(TimeoutError):  # after a minute
            serve.delete(NAME)
    serve.shutdown()
