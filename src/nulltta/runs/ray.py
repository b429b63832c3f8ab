"""A Ray cluster, as `nulltta batch` and `nulltta serve` use it: Ray itself, a connection, what a worker takes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from nulltta.errors import InvalidValue


def require_ray(library: str) -> Any:
    """Ray with one of its libraries, "data" or "serve"; it reports to nobody.

    Raises:
        NullTTAError: not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import_module(f"ray.{library}")
        return import_module("ray")
    except ImportError as error:
        raise InvalidValue("--engine ray needs Ray: pip install 'nulltta[ray]'") from error


def connect(ray: Any, address: str | None) -> None:
    """To the cluster at an address, as `ray.init` takes it; None for the one that RAY_ADDRESS names or that runs on
    this machine, else a fresh one of this machine's CPUs and GPUs, which ends with this process.

    Raises:
        NullTTAError: no cluster answers.
    """
    _require_answer(address or "")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)
    except Exception as error:  # Ray raises bare ones, too
        where = f"at '{address}'" if address else "here"
        raise InvalidValue(
            f"no Ray cluster {where}: {first_line(error)} (if it asks for a token, set RAY_AUTH_MODE=token)"
        ) from error


def machines(ray: Any) -> list[Mapping[str, float]]:
    """The resources of each machine: {"CPU": 16.0, "GPU": 8.0}."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def shares(nodes: Sequence[Mapping[str, float]], workers: int | None, device: str | None) -> tuple[int, dict[str, int]]:
    """How many workers, and what each takes: a GPU or, where there is none or device is "cpu", as many CPUs as let
    all of them run at once.

    nodes: each machine's resources.
    workers: None for one a GPU or, without any, one a machine.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if (device or "cuda").startswith("cuda") and (gpus or device):
        return workers or max(1, gpus), {"num_gpus": 1}
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    workers = workers or max(1, len(cpus))
    fitting = (share for share in range(max(cpus, default=1), 0, -1) if sum(n // share for n in cpus) >= workers)
    return workers, {"num_cpus": next(fitting, 1)}


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _require_answer(address: str) -> None:
    """Refuse a host and port where nothing listens: Ray itself would ask again for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InvalidValue(f"no Ray cluster at '{address}': {getattr(error, 'strerror', None) or error}") from error
