"""The routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from nulltta.rewards import REWARDS
from nulltta.server import logs, tracing
from nulltta.server.background import SubmittedJobs, add_job_routes
from nulltta.server.edits import MAX_FIELDS, MAX_FILES, read_edit
from nulltta.server.engine import ServerEngine
from nulltta.server.errors import APIError, from_http, from_validation
from nulltta.server.image_store import ImageStore, StoredImages
from nulltta.server.job_book import SharedJobs
from nulltta.server.limits import require_model
from nulltta.server.middleware import add_middleware
from nulltta.server.openapi import EDIT_FORM, IMAGES, describe
from nulltta.server.responses import JobResponse
from nulltta.server.schemas import GenerationRequest
from nulltta.server.settings import ServerSettings

T = TypeVar("T")
SWEEP_INTERVAL = 60.0
"""Seconds between two deletions of expired images."""
REPORT_INTERVAL = 1.0
"""Seconds between two reports of a replica's jobs to the others."""
STOP_WITHIN = 2.0
"""Seconds that the worker has at the end to leave the evaluation in progress."""


def create_app(
    engine: ServerEngine,
    images: ImageStore | None = None,
    jobs: SharedJobs | None = None,
    tracers: Any = None,
) -> FastAPI:
    """Return the server as an ASGI application, whose startup and shutdown start and stop the engine's worker.

    Args:
        engine: the model and its queue.
        images: the store for images that are sent as URLs, if several replicas share one; None for a store of its own.
        jobs: where several replicas find each other's jobs; None for a server alone.
        tracers: OpenTelemetry's tracer provider; None for that of the settings, if they ask for one.

    Raises:
        MissingExtra: if the settings ask for traces, and OpenTelemetry is not installed.
    """
    settings = engine.settings
    tracers = tracers or tracing.provider(settings)
    store = images or StoredImages(settings.url_lifetime, settings.max_urls, settings.image_folder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.worker.start()
        repeated = [
            asyncio.create_task(_repeat("sweep", SWEEP_INTERVAL, lambda: asyncio.to_thread(store.sweep))),
            asyncio.create_task(_repeat("report", REPORT_INTERVAL, submitted.report)),
        ]
        yield
        for task in repeated:
            task.cancel()
        engine.close()
        engine.abort()
        await asyncio.to_thread(engine.worker.join, STOP_WITHIN)
        await _attempt("report", submitted.report)
        store.close()
        if tracers is not None:
            await asyncio.to_thread(tracing.close, tracers)

    # The documentation pages are off because they load scripts from other hosts.
    app = FastAPI(title="nulltta", lifespan=lifespan, docs_url=None, redoc_url=None)
    add_middleware(app, settings, engine.metrics)
    for kind in (APIError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _error_response)
    submitted = SubmittedJobs(engine, partial(_link, settings, store), jobs)
    _add_image_routes(app, engine, store)
    add_job_routes(app, submitted)
    _add_catalogue_routes(app, engine)
    _add_health_routes(app, engine, shared=images is not None)
    describe(app, settings)
    if tracers is not None:
        tracing.instrument(app, tracers)
    return app


def _add_image_routes(app: FastAPI, engine: ServerEngine, store: ImageStore) -> None:
    """Add the routes that sample images and the one that serves them by URL.

    Args:
        app: the application.
        engine: the model and its queue.
        store: where images by URL are.
    """
    settings = engine.settings

    @app.post("/v1/images/generations", response_model=None, responses=IMAGES)
    async def generate(body: GenerationRequest, request: Request) -> Response | dict[str, Any]:
        return await answer(body, request)

    @app.post("/v1/images/edits", response_model=None, responses=IMAGES, openapi_extra=EDIT_FORM)
    async def edit(request: Request) -> Response | dict[str, Any]:
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS) as form:
            body = await read_edit(form)
        return await answer(body, request)

    async def answer(body: GenerationRequest, request: Request) -> Response | dict[str, Any]:
        job = await engine.submit(body, request.state.request_id)
        response = JobResponse(job, body, settings.name)
        if body.stream:
            return response.as_stream()
        try:
            finished = await _unless_disconnected(request, job.finished())
        finally:
            job.cancel()
        if finished is None:
            return Response(status_code=499)  # the client is gone; the status is for the log
        return await response.as_json(finished, _link(settings, store, request, body) if body.by_url else None)

    @app.get("/images/{name}.{kind}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
    def image(name: str, kind: str) -> Response:
        if kind not in ("png", "jpeg", "webp") or (found := store.find(name)) is None:
            raise APIError(404, "there is no such image, or it has expired", code="not_found")
        return Response(found, media_type=f"image/{kind}", headers={"cache-control": "private, no-store"})


def _add_catalogue_routes(app: FastAPI, engine: ServerEngine) -> None:
    """Add the routes that list the model and the rewards."""
    settings = engine.settings
    about = {
        "object": "model", "created": int(time.time()), "owned_by": "nulltta",
        "nulltta": {"size": str(engine.size), "methods": list(settings.methods)},
    }  # fmt: skip

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, **about} for name in settings.names]}

    @app.get("/v1/models/{name:path}")
    def one_model(name: str) -> dict[str, Any]:
        require_model(name, settings)
        return {"id": name, **about}

    @app.get("/v1/rewards")
    def rewards() -> dict[str, Any]:
        return {"object": "list", "data": [_describe_reward(name) for name in engine.rewards.names]}


def _add_health_routes(app: FastAPI, engine: ServerEngine, *, shared: bool) -> None:
    """Add the probes and Prometheus' metrics; shared: whether this server is one of several replicas."""

    @app.get("/healthz", responses={500: {"description": "only a new process helps"}})
    def healthz() -> Response:
        reason = engine.health.dead()
        return JSONResponse({"status": reason or "ok"}, 500 if reason else 200)

    @app.get("/readyz", responses={503: {"description": "the server should get no requests now"}})
    def readyz() -> Response:
        reason = engine.unready()
        return JSONResponse({"status": reason or "ready"}, 503 if reason else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        if shared:
            message = "this is one of several replicas, whose metrics Ray exports together"
            raise APIError(404, message, code="not_found")
        return PlainTextResponse(generate_latest(engine.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _link(
    settings: ServerSettings, store: ImageStore, request: Request, body: GenerationRequest
) -> Callable[[bytes], str]:
    """Return what stores an encoded image for a request and returns its URL."""
    base = (settings.public_url or str(request.base_url)).rstrip("/")
    return lambda encoded: f"{base}/images/{store.add(encoded)}.{body.output_format}"


def _describe_reward(reward: str) -> dict[str, Any]:
    """Return OpenAI-style information on a reward; of the operator's own rewards only the name is known."""
    described: dict[str, Any] = {"id": reward, "object": "reward"}
    if entry := REWARDS.get(reward):
        described |= {
            "summary": entry.summary, "differentiable": entry.differentiable, "licence": entry.licence,
        }  # fmt: skip
    return described


def _error_response(request: Request, error: Exception) -> Response:
    """Return the response to an exception, in OpenAI's form."""
    if isinstance(error, RequestValidationError):
        error = from_validation(error.errors())
    elif isinstance(error, HTTPException):
        error = from_http(error, f"{request.method} {request.url.path}")
    assert isinstance(error, APIError)
    return error.response()


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`; cancel it and return None as soon as the client disconnects."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()


async def _disconnected(request: Request) -> None:
    """Wait until the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _repeat(event: str, interval: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do something every so many seconds; an error is logged as an event, and the next time may succeed."""
    while True:
        await asyncio.sleep(interval)
        await _attempt(event, work)


async def _attempt(event: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do something; an error is logged as an event."""
    try:
        await work()
    except Exception as error:
        logs.failure(event, error, quote=False)
