"""Structured logs: one JSON object per line on stderr. Text that may quote a prompt is left out unless asked for."""

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
    """Log an event with its fields, leaving out those that are None."""
    LOGGER.log(level, event, extra={"fields": {name: value for name, value in fields.items() if value is not None}})


def failure(event: str, error: BaseException, *, quote: bool, **fields: Any) -> None:
    """Log an exception: its type and where it was raised and, if `quote`, its message, which may quote a prompt."""
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    write(
        event, logging.ERROR, error=type(error).__name__, message=str(error) if quote else None, at=frames[-8:],
        **fields,
    )  # fmt: skip


class JSONFormatter(logging.Formatter):
    """Formats a record as {"time", "level", "event", ...}."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(line | getattr(record, "fields", {}), default=str)


def configure(*, quote: bool) -> None:
    """Send the server's events and all warnings to stderr, and silence uvicorn's own logs.

    Args:
        quote: whether messages that may quote a prompt are logged. Among them are warnings, some of which name the
            words of a prompt that did not fit.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    LOGGER.handlers, LOGGER.propagate = [handler], False
    LOGGER.setLevel(logging.INFO)
    exporting = logging.getLogger("opentelemetry")
    exporting.handlers, exporting.propagate = [handler], False
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        text = str(message) if quote else None
        write("warning", logging.WARNING, kind=category.__name__, at=f"{Path(filename).name}:{lineno}", message=text)

    warnings.showwarning = show  # type: ignore[assignment]
