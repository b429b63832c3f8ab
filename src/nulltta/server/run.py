"""Starting and stopping a server on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from nulltta.contracts import GuidedModel
from nulltta.runs.network import bind, url
from nulltta.server import logs
from nulltta.server.app import create_app
from nulltta.server.engine import ServerEngine
from nulltta.server.settings import ServerSettings

INTERRUPTED = 128 + signal.SIGINT
"""The exit code after a second Ctrl-C."""


class GracefulServer(uvicorn.Server):
    """A uvicorn server that on shutdown refuses waiting requests and gives those in progress time to finish.

    The parser is h11, which limits the size of a request's headers. uvicorn would choose httptools where that is
    installed (Ray installs it), and httptools reads an endless header into memory before any check of ours.
    """

    def __init__(self, engine: ServerEngine) -> None:
        settings = engine.settings
        super().__init__(uvicorn.Config(
            create_app(engine), host=settings.host, port=settings.port, log_config=None, access_log=False,
            server_header=False, lifespan="on", timeout_graceful_shutdown=int(settings.grace) + 5, http="h11",
        ))  # fmt: skip
        self.engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; returns when all connections are closed."""
        logs.write("stopping", grace=self.engine.settings.grace)
        self.engine.close()
        abort = asyncio.get_running_loop().call_later(self.engine.settings.grace, self.engine.abort)
        await super().shutdown(sockets)
        abort.cancel()


def serve(settings: ServerSettings, load: Callable[[], GuidedModel]) -> None:
    """Serve until SIGTERM or Ctrl-C; return when no request is in progress any more.

    Where the worker is still in an evaluation of the model after that, or a second Ctrl-C leaves no time, the process
    ends here: Python cannot shut down beside a thread that computes.

    Args:
        settings: the operator's settings.
        load: loads the model.

    Raises:
        InvalidValue: if the address cannot be listened on, or a reward or a method is unknown.
        LoadError: if the model or a reward does not load.
    """
    with bind(settings.host, settings.port) as listener:
        engine = ServerEngine(load(), settings)
        logs.configure(quote=settings.log_prompts)
        logs.write(
            "listening", address=url(*listener.getsockname()[:2]), model=settings.name,
            rewards=engine.rewards.names, key_needed=bool(settings.keys),
        )  # fmt: skip
        listener.listen(2048)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server = GracefulServer(engine)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has stopped
            server.run(sockets=[listener])
        logs.write("stopped", worker="still busy" if engine.worker.is_alive() else None)
        if engine.worker.is_alive():
            sys.stderr.flush()
            os._exit(INTERRUPTED if server.force_exit else 0)
