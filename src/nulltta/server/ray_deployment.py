"""Serving from several GPUs or machines: a whole server per replica on Ray Serve."""

from __future__ import annotations

import logging
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nulltta.contracts import GuidedModel
from nulltta.errors import InvalidValue, NullTTAError, first_line
from nulltta.runs.network import bind, url
from nulltta.runs.ray import connect, machines, require_ray, shares
from nulltta.server import logs
from nulltta.server.app import create_app
from nulltta.server.engine import ServerEngine
from nulltta.server.ray_proxy import retrying
from nulltta.server.ray_shared import ReplicaJobs, SharedImages, SharedState
from nulltta.server.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

APPLICATION = "nulltta"
"""The name of Ray Serve's application."""
EXTRA_REQUESTS = 16
"""Requests of a replica beyond those in its queue and its batch: probes, images by URL, requests to be refused."""
POLL = 1.0
"""Seconds between two questions of a replica whether the command is stopping."""
LOGGING = {"enable_access_log": False}  # the access log would reveal the names of images
_REASON = re.compile(r"(?:NullTTAError|InvalidValue|LoadError|DoesNotFit|MissingExtra|RewardError|OutOfMemory): (.+)")


@dataclass(frozen=True)
class RayDeployment:
    """Serves from a Ray cluster until SIGTERM or Ctrl-C.

    Attributes:
        address: the cluster, as `nulltta.runs.ray.connect` takes it.
        replicas: the smallest and the largest number of replicas, between which Ray Serve scales by load; None for
            one per GPU or, without GPUs, one per machine.
        device: the device that the model was asked to run on.

    Raises:
        InvalidValue: if `replicas` is not a range.
    """

    address: str | None = None
    replicas: tuple[int, int] | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.replicas is not None and not 1 <= self.replicas[0] <= self.replicas[1]:
            least, most = self.replicas
            raise InvalidValue(f"must be MIN MAX with 1 <= MIN <= MAX, not {least} {most}", field="replicas")

    def __call__(self, settings: ServerSettings, load: Callable[[], GuidedModel]) -> None:
        """Serve.

        Args:
            settings: the operator's settings, which hold for every replica.
            load: loads the model; called once in every replica.

        Raises:
            InvalidValue: if the address cannot be listened on, no cluster answers, Ray Serve is in use there already,
                or a replica does not start.
            MissingExtra: if Ray is not installed.
        """
        ray = require_ray("serve")
        with bind(settings.host, settings.port) as listener:  # finds a taken port at once, and replaces port 0
            port = listener.getsockname()[1]
        connect(ray, self.address)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # replaces the handler that Ray has set
        try:
            with redirect_stdout(sys.stderr):  # Ray prints what it stopped
                self._serve(ray, settings, load, port)
        except ray.exceptions.RayError as error:
            raise NullTTAError(f"Ray failed: {first_line(error)}") from error
        finally:
            ray.shutdown()

    def _serve(self, ray: Any, settings: ServerSettings, load: Callable[[], GuidedModel], port: int) -> None:
        _require_unused(ray.serve)
        logs.configure(quote=settings.log_prompts)
        # A folder of the driver's, so that an actor that is started again finds the images of the one that died.
        folder = settings.image_folder or Path(tempfile.mkdtemp(prefix="nulltta-"))
        here = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3, scheduling_strategy=here)(SharedState)
        images = actor.remote(settings.url_lifetime, settings.max_urls, folder)
        try:
            ray.serve.start(
                proxy_location="HeadOnly",
                http_options={"host": settings.host, "port": port},
                logging_config=LOGGING,
                controller_options={"runtime_env": {"env_vars": retrying(settings.max_upload)}},
            )
            _deploy(ray.serve, self._deployment(ray, settings).bind(settings, load, images))
            logs.write(
                "listening", address=url(settings.host, port), model=settings.name, key_needed=bool(settings.keys)
            )  # fmt: skip
            signal.pause()
        except KeyboardInterrupt:
            logs.write("stopping", grace=settings.grace)
            ray.get(images.stop.remote())
        finally:
            _stop(ray.serve)
            if settings.image_folder is None:
                shutil.rmtree(folder, ignore_errors=True)
        logs.write("stopped")

    def _deployment(self, ray: Any, settings: ServerSettings) -> Any:
        """Return the deployment, which scales so that each replica has one batch of requests in progress.

        Ray Serve may send a replica more requests than its queue holds: the replica itself refuses the surplus.
        """
        most, share = shares(machines(ray), self.replicas and self.replicas[1], self.device)
        least = self.replicas[0] if self.replicas else most
        return ray.serve.deployment(
            ray.serve.ingress()(ServerReplica),
            name=APPLICATION,
            ray_actor_options=share,
            autoscaling_config={
                "min_replicas": least, "max_replicas": most, "target_ongoing_requests": settings.batch_size,
            },
            max_ongoing_requests=settings.queue_size + settings.batch_size + EXTRA_REQUESTS,
            max_constructor_retry_count=1,  # a mistake in the settings would fail every time
            graceful_shutdown_timeout_s=settings.grace,
            logging_config=LOGGING,
        )  # fmt: skip


class ServerReplica:
    """One server of a deployment, with the methods that Ray Serve calls."""

    def __init__(self, settings: ServerSettings, load: Callable[[], GuidedModel], images: Any) -> None:
        logs.configure(quote=settings.log_prompts)
        self.engine, self.images = ServerEngine(load(), settings), SharedImages(images)
        self.jobs = ReplicaJobs(images)
        threading.Thread(target=self._close_when_told, daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application that handles the replica's requests."""
        return create_app(self.engine, self.images, self.jobs)

    def check_health(self) -> None:
        """Raise RuntimeError if Ray Serve should replace this replica."""
        if reason := self.engine.health.dead():
            raise RuntimeError(reason)

    def _close_when_told(self) -> None:
        """Refuse the requests that wait as soon as the command is told to stop."""
        while not self.images.stopping():
            time.sleep(POLL)
        self.engine.close()


def _require_unused(serve: Any) -> None:
    """Refuse a cluster where Ray Serve runs already, since it listens at an address that somebody else chose."""
    status = serve.status()
    if status.proxies or status.applications:
        raise InvalidValue(
            "Ray Serve runs on that cluster already: end it with 'serve shutdown', or give another cluster"
        )


def _deploy(serve: Any, application: Any) -> None:
    """Start all replicas and wait for them; a replica's own error is found in the traceback that Ray reports."""
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        traceback = serve.status().applications[APPLICATION].deployments[APPLICATION].message
        reason = _REASON.search(traceback)
        raise InvalidValue(reason[1] if reason else f"Ray failed: {first_line(error)}") from error


def _stop(serve: Any) -> None:
    """Stop Ray Serve after the requests in progress."""
    while APPLICATION in serve.status().applications:
        with suppress(TimeoutError):  # raised after a minute, which may be less than the grace
            serve.delete(APPLICATION)
    serve.shutdown()
