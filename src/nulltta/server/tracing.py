"""Traces for OpenTelemetry: one span per request, made by OpenTelemetry's own instrumentation of FastAPI.

A span has the route, the status and the id of its request, and belongs to the trace that the client's `traceparent`
names. It quotes no prompt. Probes, metrics and images by URL have no spans: the names of images are secrets.
"""

from __future__ import annotations

import os
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nulltta.errors import MissingExtra
from nulltta.server.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables, any of which has spans exported; the exporter reads them and their like."""
FLUSH_WITHIN = 2.0
"""Seconds at the end for spans that have not been exported yet."""
_UNTRACED = r"/healthz$,/readyz$,/metrics$,/images/[0-9a-f]{32}\."


def wanted(settings: ServerSettings) -> bool:
    """Return whether spans are to be exported, by the settings or by OpenTelemetry's own variables.

    Raises:
        MissingExtra: if they are, and OpenTelemetry is not installed.
    """
    if settings.otlp_endpoint is None and not any(os.environ.get(name) for name in ENDPOINTS):
        return False
    try:
        import_module("opentelemetry.instrumentation.fastapi")
        import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise MissingExtra("exporting traces", "OpenTelemetry", "otel") from error
    return True


def provider(settings: ServerSettings) -> Any:
    """Return a tracer provider that exports spans over OTLP; None where they are not wanted.

    Raises:
        MissingExtra: if OpenTelemetry is not installed.
    """
    if not wanted(settings):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = settings.otlp_endpoint
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "nulltta"}
    found = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint and f"{endpoint.rstrip('/')}/v1/traces")
    found.add_span_processor(BatchSpanProcessor(exporter))
    return found


def instrument(app: FastAPI, tracers: Any) -> None:
    """Make a span for every request that `app` answers.

    Args:
        app: the application, with all its routes.
        tracers: OpenTelemetry's tracer provider.
    """
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.metrics import NoOpMeterProvider

    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=tracers, meter_provider=NoOpMeterProvider(), excluded_urls=_UNTRACED,
        exclude_spans=["receive", "send"], http_capture_headers_server_response=["x-request-id"],
    )  # fmt: skip


def close(tracers: Any) -> None:
    """Export what is left, within `FLUSH_WITHIN` seconds: a collector that does not answer is not waited for."""
    closing = threading.Thread(target=tracers.shutdown, daemon=True)
    closing.start()
    closing.join(FLUSH_WITHIN)
