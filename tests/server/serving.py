"""A real server on a loopback address, in a thread."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from openai import OpenAI
from PIL import Image

import nulltta
from nulltta.runs.network import bind
from nulltta.server.engine import ServerEngine
from nulltta.server.run import GracefulServer
from nulltta.server.settings import ServerSettings

from . import gates

KEY = "sk-test-0123456789abcdef"
OFFERED = ("brightness", "colourfulness", "target-colour", *gates.NAMES)
SAMPLER = {"num_inference_steps": 4, "guidance_scale": 3, "seed": 0}
SHORT = {**SAMPLER, "inner_steps": [1, 1], "num_particles": 2}


@dataclass
class Running:
    """A running server."""

    engine: ServerEngine
    server: GracefulServer
    thread: threading.Thread
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = KEY) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def metric(self, name: str, **labels: str) -> float:
        return self.engine.metrics.registry.get_sample_value(f"nulltta_{name}", labels) or 0.0

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "the condition never became true"
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True


@contextmanager
def running(model: nulltta.GuidedModel, **settings: Any) -> Iterator[Running]:
    given = {"rewards": OFFERED, "name": "tiny", "port": 0, "grace": 5, **settings}
    engine = ServerEngine(model, ServerSettings(**given))
    with bind("127.0.0.1", 0) as listener:
        server = GracefulServer(engine)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        found = Running(engine, server, thread, listener.getsockname()[1])
        try:
            found.until(lambda: server.started)
            yield found
        finally:
            gates.gate.set()
            found.stop()
            thread.join(60)
            assert not thread.is_alive()
            assert not engine.worker.is_alive()


def options(**given: Any) -> dict[str, Any]:
    """Return what a request says under `nulltta`; plain sampling is given the settings of the sampler alone."""
    return {**(SAMPLER if given.get("method") == "plain" else SHORT), "reward": "brightness", **given}


def config(**changes: Any) -> nulltta.NullTTAConfig:
    """Return the configuration that SHORT asks for, with changes."""
    return nulltta.NullTTAConfig(**{name: value for name, value in {**SHORT, **changes}.items() if name != "seed"})


def picture(encoded: str | None) -> Image.Image:
    assert encoded is not None
    found = Image.open(BytesIO(base64.b64decode(encoded)))
    found.load()
    assert found.format == "PNG"
    return found


def assert_same(found: Image.Image, expected: Image.Image) -> None:
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 1
