"""The routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from nulltta.rewards import REWARDS
from nulltta.server import logs
from nulltta.server.background import add_job_routes
from nulltta.server.edits import MAX_FIELDS, MAX_FILES, read_edit
from nulltta.server.engine import ServerEngine
from nulltta.server.errors import APIError, from_http, from_validation
from nulltta.server.image_store import ImageStore, StoredImages
from nulltta.server.limits import require_model, size_name
from nulltta.server.middleware import add_middleware
from nulltta.server.openapi import EDIT_FORM, IMAGES, describe
from nulltta.server.responses import JobResponse
from nulltta.server.schemas import GenerationRequest

T = TypeVar("T")
SWEEP_INTERVAL = 60.0
"""Seconds between two deletions of expired images."""
STOP_WITHIN = 2.0
"""Seconds that the worker has at the end to leave the evaluation in progress."""


def create_app(engine: ServerEngine, images: ImageStore | None = None) -> FastAPI:
    """Return the server as an ASGI application, whose startup and shutdown start and stop the engine's worker.

    Args:
        engine: the model and its queue.
        images: the store for images that are sent as URLs, if several replicas share one; None for a store of its own.
    """
    settings = engine.settings
    store = images or StoredImages(settings.url_lifetime, settings.max_urls, settings.image_folder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.worker.start()
        sweeper = asyncio.create_task(_sweep(store))
        yield
        sweeper.cancel()
        engine.close()
        engine.abort()
        await asyncio.to_thread(engine.worker.join, STOP_WITHIN)
        store.close()

    # The documentation pages are off because they load scripts from other hosts.
    app = FastAPI(title="nulltta", lifespan=lifespan, docs_url=None, redoc_url=None)
    add_middleware(app, settings, engine.metrics)
    for kind in (APIError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _error_response)
    _add_image_routes(app, engine, store, shared=images is not None)
    _add_catalogue_routes(app, engine)
    _add_health_routes(app, engine, shared=images is not None)
    describe(app, settings)
    return app


def _add_image_routes(app: FastAPI, engine: ServerEngine, store: ImageStore, *, shared: bool) -> None:
    """Add the routes that sample images and the one that serves them by URL.

    Args:
        app: the application.
        engine: the model and its queue.
        store: where images by URL are.
        shared: whether this server is one of several replicas.
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
        job = engine.submit(body, request.state.request_id)
        response = JobResponse(job, body, settings.name)
        if body.stream:
            return response.as_stream()
        try:
            finished = await _unless_disconnected(request, job.finished())
        finally:
            job.cancel()
        if finished is None:
            return Response(status_code=499)  # the client is gone; the status is for the log
        return await response.as_json(finished, link(request, body) if body.by_url else None)

    def link(request: Request, body: GenerationRequest) -> Callable[[bytes], str]:
        base = (settings.public_url or str(request.base_url)).rstrip("/")
        return lambda encoded: f"{base}/images/{store.add(encoded)}.{body.output_format}"

    if not shared:  # a job is known to the replica that it was submitted to
        add_job_routes(app, engine, link)

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
        "nulltta": {"size": size_name(engine.size), "methods": list(settings.methods)},
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


async def _sweep(store: ImageStore) -> None:
    """Delete expired images from time to time; an error is logged, and the next time may succeed."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        try:
            await asyncio.to_thread(store.sweep)
        except Exception as error:
            logs.failure("sweep", error, quote=False)
