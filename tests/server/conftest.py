"""Real servers on a loopback address, which sample from the tiny checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import nulltta

from . import gates
from .serving import KEY, Running, running


@pytest.fixture(scope="session")
def tiny(checkpoint: Path) -> nulltta.GuidedModel:
    return nulltta.load_model(str(checkpoint), device="cpu")


@pytest.fixture(scope="session")
def shared(tiny: nulltta.GuidedModel) -> Iterator[Running]:
    """A server with a key and otherwise default settings, for tests that do not change its state."""
    with running(tiny, keys=(KEY,)) as found:
        yield found


@pytest.fixture
def start(tiny: nulltta.GuidedModel) -> Iterator[Callable[..., Running]]:
    """Start servers with settings of their own."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(tiny, **settings))


@pytest.fixture
def closed_gate() -> Iterator[threading.Event]:
    """The gate of the reward `gates:gated`, closed until the test opens it."""
    gates.gate.clear()
    yield gates.gate
    gates.gate.set()
