"""Requests whose images are fetched later: submitted, polled and cancelled by their id."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from nulltta.server import logs
from nulltta.server.engine import ServerEngine
from nulltta.server.errors import APIError, internal
from nulltta.server.job_book import LIVE, JobState, SharedJobs
from nulltta.server.jobs import ImageJob
from nulltta.server.responses import JobResponse
from nulltta.server.schemas import GenerationRequest

MAX_KEPT = 1000
"""The number of finished jobs that are remembered."""
Link: TypeAlias = Callable[[Request, GenerationRequest], Callable[[bytes], str]]
"""Returns what stores an encoded image for a request and returns its URL."""


@dataclass
class _Entry:
    """A submitted job, the task that waits for its images, and when that ended, by `time.monotonic`."""

    job: ImageJob
    task: asyncio.Task[dict[str, Any]]
    created: int
    ended: float = 0.0
    told: bool = False  # whether the other replicas know how it ended

    def note_end(self, _: object) -> None:
        """Note that the task has ended."""
        self.ended = time.monotonic()


class SubmittedJobs:
    """The jobs of one server. Their images are sent as URLs.

    A job is remembered as long as its images are kept: for `url_lifetime` seconds after its end, however long it took.

    Args:
        engine: the model and its queue.
        link: how images become URLs.
        shared: where the jobs of other replicas are found; None for a server alone.
    """

    def __init__(self, engine: ServerEngine, link: Link, shared: SharedJobs | None = None) -> None:
        self.engine, self.link, self.shared = engine, link, shared
        self._kept: dict[str, _Entry] = {}  # oldest first

    async def submit(self, body: GenerationRequest, request: Request) -> JobState:
        """Put a request into the queue and return the state of its job.

        Raises:
            APIError: as `ServerEngine.submit` does.
        """
        if body.stream:
            raise APIError(400, "'stream': a job has no stream", code="invalid_value", param="stream")
        job = await self.engine.submit(body, request.state.request_id)
        self._forget_old()
        name = f"job_{secrets.token_hex(16)}"
        work = _result(job, JobResponse(job, body, self.engine.settings.name), self.link(request, body))
        entry = self._kept[name] = _Entry(job, asyncio.create_task(work), int(time.time()))
        entry.task.add_done_callback(entry.note_end)
        if self.shared is not None:
            await run_in_threadpool(self.shared.report, [self._state(name)])
        return self._state(name)

    async def find(self, name: str) -> JobState:
        """Return the state of a job.

        Raises:
            APIError: if there is no such job, or it has expired.
        """
        self._forget_old()
        own = self._state(name) if name in self._kept else None
        return own or await self._elsewhere(lambda jobs: jobs.find(name))

    async def cancel(self, name: str) -> JobState:
        """Cancel a job that has not ended, and return its state.

        Raises:
            APIError: if there is no such job, or it has expired.
        """
        if name not in self._kept:
            return await self._elsewhere(lambda jobs: jobs.cancel(name))
        self._kept[name].job.cancel()
        self._kept[name].task.cancel()
        return self._state(name)

    async def report(self) -> None:
        """Tell the other replicas how this one's jobs are, and cancel those that they were asked to cancel."""
        news = {name: self._state(name) for name, entry in self._kept.items() if not entry.told}
        if self.shared is None or not news:
            return
        for name in await run_in_threadpool(self.shared.report, list(news.values())):
            await self.cancel(name)
        for name in news.keys() & self._kept.keys():
            self._kept[name].told = news[name]["status"] not in LIVE

    async def _elsewhere(self, ask: Callable[[SharedJobs], JobState | None]) -> JobState:
        """Return the answer of the other replicas about a job."""
        if self.shared is None or (found := await run_in_threadpool(ask, self.shared)) is None:
            raise APIError(404, "there is no such job, or it has expired", code="not_found")
        return found

    def _state(self, name: str) -> JobState:
        entry = self._kept[name]
        about = {"id": name, "object": "image.generation.job", "created": entry.created}
        if entry.task.cancelled() or (entry.task.cancelling() and not entry.task.done()):
            return about | {"status": "cancelled"}
        if entry.task.done():
            return about | entry.task.result()
        return about | {"status": "running" if entry.job in self.engine.worker.batch else "queued"}

    def _forget_old(self) -> None:
        done = [name for name, entry in self._kept.items() if entry.task.done()]
        oldest = time.monotonic() - self.engine.settings.url_lifetime
        expired = {name for name in done if self._kept[name].ended < oldest}
        for name in expired | set(done[: max(0, len(done) - MAX_KEPT)]):
            del self._kept[name]


def add_job_routes(app: FastAPI, jobs: SubmittedJobs) -> None:
    """Add the routes of jobs."""

    @app.post("/v1/images/jobs", status_code=202)
    async def submit(body: GenerationRequest, request: Request) -> dict[str, Any]:
        return await jobs.submit(body, request)

    @app.get("/v1/images/jobs/{name}")
    async def poll(name: str) -> dict[str, Any]:
        return await jobs.find(name)

    @app.delete("/v1/images/jobs/{name}")
    async def cancel(name: str) -> JSONResponse:
        return JSONResponse(await jobs.cancel(name))


async def _result(job: ImageJob, response: JobResponse, link: Callable[[bytes], str]) -> dict[str, Any]:
    """Wait for a job's images and return its status with the response or the error that its client would have got."""
    try:
        return {"status": "completed", "result": await response.as_json(await job.finished(), link)}
    except APIError as error:
        return {"status": "failed", **error.body()}
    except Exception as error:  # of a disk that is full, say
        logs.failure("error", error, quote=False, request_id=job.id)
        return {"status": "failed", **internal(job.id).body()}
    finally:
        job.cancel()
