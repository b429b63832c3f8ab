"""Requests whose images are fetched later: submitted, polled and cancelled by their id."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse

from nulltta.server.engine import ServerEngine
from nulltta.server.errors import APIError
from nulltta.server.jobs import ImageJob
from nulltta.server.responses import JobResponse
from nulltta.server.schemas import GenerationRequest

MAX_KEPT = 1000
"""The number of finished jobs that are remembered."""


@dataclass(frozen=True)
class _Entry:
    """A submitted job, and the task that waits for its images."""

    job: ImageJob
    task: asyncio.Task[dict[str, Any]]
    created: int


def add_job_routes(
    app: FastAPI, engine: ServerEngine, link: Callable[[Request, GenerationRequest], Callable[[bytes], str]]
) -> None:
    """Add the routes of jobs. Their images are sent as URLs, and a job is remembered as long as its images are kept.

    Args:
        app: the application.
        engine: the model and its queue.
        link: returns what stores an encoded image for a request and returns its URL.
    """
    kept: dict[str, _Entry] = {}  # oldest first
    settings = engine.settings

    def describe(name: str) -> dict[str, Any]:
        entry = kept[name]
        about = {"id": name, "object": "image.generation.job", "created": entry.created}
        if entry.task.cancelled() or (entry.task.cancelling() and not entry.task.done()):
            return about | {"status": "cancelled"}
        if entry.task.done():
            return about | entry.task.result()
        return about | {"status": "running" if entry.job in engine.worker.batch else "queued"}

    def find(name: str) -> _Entry:
        if (entry := kept.get(name)) is None:
            raise APIError(404, "there is no such job, or it has expired", code="not_found")
        return entry

    def forget_old() -> None:
        done = [name for name, entry in kept.items() if entry.task.done()]
        expired = {name for name in done if kept[name].created + settings.url_lifetime < time.time()}
        for name in expired | set(done[: max(0, len(done) - MAX_KEPT)]):
            del kept[name]

    @app.post("/v1/images/jobs", status_code=202)
    async def submit(body: GenerationRequest, request: Request) -> dict[str, Any]:
        if body.stream:
            raise APIError(400, "'stream': a job has no stream", code="invalid_value", param="stream")
        job = engine.submit(body, request.state.request_id)
        forget_old()
        name = f"job_{secrets.token_hex(16)}"
        work = _result(job, JobResponse(job, body, settings.name), link(request, body))
        kept[name] = _Entry(job, asyncio.create_task(work), int(time.time()))
        return describe(name)

    @app.get("/v1/images/jobs/{name}")
    async def poll(name: str) -> dict[str, Any]:
        find(name)
        return describe(name)

    @app.delete("/v1/images/jobs/{name}")
    async def cancel(name: str) -> JSONResponse:
        entry = find(name)
        entry.job.cancel()
        entry.task.cancel()
        return JSONResponse(describe(name))


async def _result(job: ImageJob, response: JobResponse, link: Callable[[bytes], str]) -> dict[str, Any]:
    """Wait for a job's images and return its status with the response or the error that its client would have got."""
    try:
        return {"status": "completed", "result": await response.as_json(await job.finished(), link)}
    except APIError as error:
        return {"status": "failed", **error.body()}
    finally:
        job.cancel()
