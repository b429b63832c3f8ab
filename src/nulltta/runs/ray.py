"""How `nulltta batch` and `nulltta serve` use a Ray cluster: importing Ray, connecting, and resources per worker."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from nulltta.errors import InvalidValue, MissingExtra, first_line


def require_ray(library: str) -> Any:
    """Import Ray and one of its libraries, "serve" or "util", with its usage statistics turned off.

    Raises:
        MissingExtra: if Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import_module(f"ray.{library}")
        return import_module("ray")
    except ImportError as error:
        raise MissingExtra("--engine ray", "Ray", "ray") from error


def connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster.

    Args:
        ray: the module, from `require_ray`.
        address: as `ray.init` takes it. None for the cluster that RAY_ADDRESS names or that runs on this machine;
            if there is none, for a new one of this machine's CPUs and GPUs, which ends with this process.

    Raises:
        InvalidValue: if no cluster answers.
    """
    _require_answer(address or "")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)
    except Exception as error:  # Ray raises Exception itself in places
        where = f"at '{address}'" if address else "here"
        raise InvalidValue(
            f"no Ray cluster {where}: {first_line(error)} (if it asks for a token, set RAY_AUTH_MODE=token)"
        ) from error


def machines(ray: Any) -> list[Mapping[str, float]]:
    """Return the resources of each machine, as in {"CPU": 16.0, "GPU": 8.0}."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def shares(nodes: Sequence[Mapping[str, float]], workers: int | None, device: str | None) -> tuple[int, dict[str, int]]:
    """Return the number of workers and the resources of each.

    A worker takes one GPU or, if there is none or `device` is "cpu", as many CPUs as let all workers run at once.

    Args:
        nodes: the resources of each machine.
        workers: the number of workers; None for one per GPU or, without GPUs, one per machine.
        device: the device that was asked for, or None.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if (device or "cuda").startswith("cuda") and (gpus or device):
        return workers or max(1, gpus), {"num_gpus": 1}
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    workers = workers or max(1, len(cpus))
    fitting = (share for share in range(max(cpus, default=1), 0, -1) if sum(n // share for n in cpus) >= workers)
    return workers, {"num_cpus": next(fitting, 1)}


def _require_answer(address: str) -> None:
    """Check that something listens at the address, because Ray itself would retry for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InvalidValue(f"no Ray cluster at '{address}': {first_line(error)}") from error
