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
from nulltta.server.answers import Answer
from nulltta.server.engine import Engine
from nulltta.server.errors import APIError, from_http, from_validation
from nulltta.server.jobs import Finished, Job
from nulltta.server.limits import size_name
from nulltta.server.middleware import add_all
from nulltta.server.pictures import Pictures, Shelf
from nulltta.server.schemas import Generation

T = TypeVar("T")
SWEEP = 60.0  # seconds between two looks for pictures that have expired


def create_app(engine: Engine, shared: Shelf | None = None) -> FastAPI:
    """The server as an ASGI application. Its engine's worker runs from its startup to its shutdown.

    shared: the pictures by URL, where this is one of several servers behind one address.
    """
    settings = engine.settings
    pictures = shared or Pictures(settings.url_lifetime, settings.max_urls)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.worker.start()
        sweeping = asyncio.create_task(_sweep(pictures))
        yield
        sweeping.cancel()
        engine.close()
        engine.abort()
        await asyncio.to_thread(engine.worker.join)  # it ends with the denoising step that it is at
        pictures.close()

    app = FastAPI(title="nulltta", lifespan=lifespan, docs_url=None, redoc_url=None)  # their pages load foreign scripts
    add_all(app, settings, engine.metrics)
    for kind in (APIError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)
    _add_images(app, engine, pictures)
    _add_catalogue(app, engine)
    _add_state(app, engine, alone=shared is None)
    return app


def _add_images(app: FastAPI, engine: Engine, pictures: Shelf) -> None:
    """What samples, and the pictures by URL."""
    settings = engine.settings

    @app.post("/v1/images/generations", response_model=None)
    async def generate(body: Generation, request: Request) -> Response | dict[str, Any]:
        job = engine.submit(body, request.state.request_id)
        answer = Answer(job, settings.name, size_name(engine.size))
        if body.stream:
            return answer.as_stream()
        try:
            finished = await _unless_gone(request, _finished(job))
        finally:
            job.end()
        if finished is None:
            return Response(status_code=499)  # nobody reads it; the log does
        return await answer.as_json(finished, _url(request) if body.response_format == "url" else None)

    def _url(request: Request) -> Callable[[bytes], str]:
        base = (settings.public_url or str(request.base_url)).rstrip("/")
        return lambda encoded: f"{base}/images/{pictures.add(encoded)}.png"

    @app.get("/images/{name}.png")
    def picture(name: str) -> Response:
        if (found := pictures.find(name)) is None:
            raise APIError(404, "there is no such picture, or none any more", code="not_found")
        return Response(found, media_type="image/png", headers={"cache-control": "private, no-store"})


def _add_catalogue(app: FastAPI, engine: Engine) -> None:
    """What may be asked for."""
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
            message = f"the model '{name}' does not exist: this server's is '{settings.name}'"
            raise APIError(404, message, code="model_not_found", param="model")
        return model

    @app.get("/v1/rewards")
    def offered() -> dict[str, Any]:
        return {"object": "list", "data": [_about(name) for name in engine.offer.names]}


def _add_state(app: FastAPI, engine: Engine, *, alone: bool) -> None:
    """What probes and Prometheus ask."""

    @app.get("/healthz")
    def healthy() -> Response:
        alive = engine.worker.is_alive()
        return JSONResponse({"status": "ok" if alive else "the worker has stopped"}, 200 if alive else 500)

    @app.get("/readyz")
    def ready() -> Response:
        why = "the server is stopping" if engine.queue.closed else ""
        return JSONResponse({"status": why or "ready"}, 503 if why else 200)

    @app.get("/metrics")
    def metrics() -> Response:
        if not alone:
            raise APIError(404, "one of several replicas would answer for itself: ask Ray's metrics", code="not_found")
        return PlainTextResponse(generate_latest(engine.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _about(reward: str) -> dict[str, Any]:
    """Of a known reward, what it is; the operator's own say nothing about themselves."""
    said: dict[str, Any] = {"id": reward, "object": "reward"}
    if entry := REWARDS.get(reward):
        said |= {"summary": entry.summary, "differentiable": entry.differentiable, "licence": entry.licence}
    return said


def _answer(request: Request, error: Exception) -> Response:
    """Every error in OpenAI's shape."""
    if isinstance(error, RequestValidationError):
        error = from_validation(error.errors())
    elif isinstance(error, HTTPException):
        error = from_http(error, f"{request.method} {request.url.path}")
    assert isinstance(error, APIError)
    return error.response()


async def _finished(job: Job) -> Finished:
    while not isinstance(event := await job.next(within=job.seconds), Finished):
        pass
    return event


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives; None, and its end, as soon as the client is gone."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _sweep(pictures: Shelf) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        await asyncio.to_thread(pictures.sweep)
