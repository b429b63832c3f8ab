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
from nulltta.server.engine import ServerEngine
from nulltta.server.errors import APIError, from_http, from_validation
from nulltta.server.image_store import ImageStore, TemporaryImages
from nulltta.server.jobs import FinishedImages, ImageJob
from nulltta.server.limits import size_name
from nulltta.server.middleware import add_middleware
from nulltta.server.responses import JobResponse
from nulltta.server.schemas import GenerationRequest

T = TypeVar("T")
SWEEP_INTERVAL = 60.0
"""Seconds between two deletions of expired images."""


def create_app(engine: ServerEngine, images: ImageStore | None = None) -> FastAPI:
    """Return the server as an ASGI application, whose startup and shutdown start and stop the engine's worker.

    Args:
        engine: the model and its queue.
        images: the store for images that are sent as URLs, if several replicas share one; None for a store of its own.
    """
    settings = engine.settings
    store = images or TemporaryImages(settings.url_lifetime, settings.max_urls)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.worker.start()
        sweeper = asyncio.create_task(_sweep(store))
        yield
        sweeper.cancel()
        engine.close()
        engine.abort()
        await asyncio.to_thread(engine.worker.join)  # the worker finishes the denoising step in progress
        store.close()

    # The documentation pages are off because they load scripts from other hosts.
    app = FastAPI(title="nulltta", lifespan=lifespan, docs_url=None, redoc_url=None)
    add_middleware(app, settings, engine.metrics)
    for kind in (APIError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _error_response)
    _add_image_routes(app, engine, store)
    _add_catalogue_routes(app, engine)
    _add_health_routes(app, engine, shared=images is not None)
    return app


def _add_image_routes(app: FastAPI, engine: ServerEngine, store: ImageStore) -> None:
    """Add the route that samples images and the one that serves them by URL."""
    settings = engine.settings

    @app.post("/v1/images/generations", response_model=None)
    async def generate(body: GenerationRequest, request: Request) -> Response | dict[str, Any]:
        job = engine.submit(body, request.state.request_id)
        response = JobResponse(job, settings.name)
        if body.stream:
            return response.as_stream()
        try:
            finished = await _unless_disconnected(request, _finished(job))
        finally:
            job.cancel()
        if finished is None:
            return Response(status_code=499)  # the client is gone; the status is for the log
        return await response.as_json(finished, _store_and_link(request) if body.response_format == "url" else None)

    def _store_and_link(request: Request) -> Callable[[bytes], str]:
        base = (settings.public_url or str(request.base_url)).rstrip("/")
        return lambda encoded: f"{base}/images/{store.add(encoded)}.png"

    @app.get("/images/{name}.png")
    def image(name: str) -> Response:
        if (found := store.find(name)) is None:
            raise APIError(404, "there is no such image, or it has expired", code="not_found")
        return Response(found, media_type="image/png", headers={"cache-control": "private, no-store"})


def _add_catalogue_routes(app: FastAPI, engine: ServerEngine) -> None:
    """Add the routes that list the model and the rewards."""
    settings = engine.settings
    model = {
        "id": settings.name, "object": "model", "created": int(time.time()), "owned_by": "nulltta",
        "nulltta": {"size": size_name(engine.size), "methods": list(settings.methods)},
    }  # fmt: skip

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    def one_model(name: str) -> dict[str, Any]:
        if name != settings.name:
            message = f"the model '{name}' does not exist: this server's model is '{settings.name}'"
            raise APIError(404, message, code="model_not_found", param="model")
        return model

    @app.get("/v1/rewards")
    def rewards() -> dict[str, Any]:
        return {"object": "list", "data": [_describe_reward(name) for name in engine.rewards.names]}


def _add_health_routes(app: FastAPI, engine: ServerEngine, *, shared: bool) -> None:
    """Add the probes and Prometheus' metrics; shared: whether this server is one of several replicas."""

    @app.get("/healthz")
    def healthz() -> Response:
        alive = engine.worker.is_alive()
        return JSONResponse({"status": "ok" if alive else "the worker has stopped"}, 200 if alive else 500)

    @app.get("/readyz")
    def readyz() -> Response:
        reason = "the server is stopping" if engine.queue.closed else ""
        return JSONResponse({"status": reason or "ready"}, 503 if reason else 200)

    @app.get("/metrics")
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


async def _finished(job: ImageJob) -> FinishedImages:
    """Wait for the job's images, passing over partial ones."""
    while not isinstance(event := await job.next(within=job.timeout), FinishedImages):
        pass
    return event


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
    """Delete expired images from time to time."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        await asyncio.to_thread(store.sweep)
