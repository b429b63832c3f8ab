"""Traces of the server, by OpenTelemetry's own instrumentation."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec

import pytest
from starlette.testclient import TestClient

import nulltta
from nulltta.cli import main
from nulltta.server import tracing
from nulltta.server.app import create_app
from nulltta.server.engine import ServerEngine
from nulltta.server.settings import ServerSettings

from .wire import GENERATE, body

needs_otel = pytest.mark.skipif(
    find_spec("opentelemetry.instrumentation") is None, reason="needs OpenTelemetry: pip install 'nulltta[otel]'"
)
pytestmark = pytest.mark.filterwarnings("default")  # OpenTelemetry's own


def engine_of(tiny: nulltta.GuidedModel, **settings: str) -> ServerEngine:
    return ServerEngine(tiny, ServerSettings(rewards=("brightness",), name="tiny", **settings))  # type: ignore[arg-type]


@needs_otel
def test_a_request_has_a_span_in_the_trace_of_its_client(tiny: nulltta.GuidedModel) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exported, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exported))
    with TestClient(create_app(engine_of(tiny), tracers=tracers), base_url="http://127.0.0.1") as client:
        trace = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "x-request-id": "mine"}
        made = client.post(GENERATE, json=body("a hidden cat") | {"response_format": "url"}, headers=trace)
        assert client.get(made.json()["data"][0]["url"]).status_code == 200
        assert client.get("/healthz").status_code == 200
        assert client.post(GENERATE, json={"n": 1}).status_code == 400
    sampled, refused = exported.get_finished_spans()  # the image's name is a secret, and probes are too many
    assert sampled.name == f"POST {GENERATE}"
    assert sampled.context.trace_id == int("ab" * 16, 16)
    assert sampled.attributes is not None
    assert sampled.attributes["http.status_code"] == 200
    assert sampled.attributes["http.response.header.x_request_id"] == ("mine",)
    assert refused.attributes is not None
    assert refused.attributes["http.status_code"] == 400
    assert "hidden" not in sampled.to_json()


class Collector(BaseHTTPRequestHandler):
    """Takes what exporters send."""

    got: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[HTTPServer]:
    Collector.got = []
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@needs_otel
@pytest.mark.parametrize("by", ["flag", "environment"])
def test_spans_reach_a_collector_before_the_server_ends(
    tiny: nulltta.GuidedModel, collector: HTTPServer, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    address = f"http://127.0.0.1:{collector.server_port}"
    if by == "environment":
        monkeypatch.setenv(tracing.ENDPOINTS[0], address)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    engine = engine_of(tiny, **({"otlp_endpoint": address} if by == "flag" else {}))
    with TestClient(create_app(engine), base_url="http://127.0.0.1") as client:
        client.get("/v1/models")
    [(path, sent)] = Collector.got
    assert path == "/v1/traces"
    assert b"/v1/models" in sent
    assert (b"pictures" if by == "environment" else b"nulltta") in sent


def test_without_the_extra_the_error_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.fastapi", None)
    assert main(["serve", "--otlp-endpoint", "http://localhost:4318"]) == 2
    assert capsys.readouterr().err == "error: exporting traces needs OpenTelemetry: pip install 'nulltta[otel]'\n"
