"""Structured logs: one JSON object a line on stderr. What may quote a prompt is left out unless that is asked for."""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("nulltta.server")


def write(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line: the event and its fields; those that are None are left out."""
    LOGGER.log(level, event, extra={"fields": {name: value for name, value in fields.items() if value is not None}})


def failure(event: str, error: BaseException, *, quote: bool, **fields: Any) -> None:
    """An error's type and where it came from; its message, which may quote a prompt, only with `quote`."""
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    write(
        event, logging.ERROR, error=type(error).__name__, message=str(error) if quote else None, at=frames[-8:],
        **fields,
    )  # fmt: skip


class Lines(logging.Formatter):
    """{"time", "level", "event", ...}"""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(line | getattr(record, "fields", {}), default=str)


def set_up(*, quote: bool) -> None:
    """Write our own events to stderr; warnings become events, without their text unless `quote`: some of them name
    the words of a prompt that did not fit. Nothing of uvicorn's is needed beside them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    LOGGER.handlers, LOGGER.propagate = [handler], False
    LOGGER.setLevel(logging.INFO)
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        text = str(message) if quote else None
        write("warning", logging.WARNING, kind=category.__name__, at=f"{Path(filename).name}:{lineno}", message=text)

    warnings.showwarning = show  # type: ignore[assignment]
