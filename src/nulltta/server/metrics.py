"""The metrics that /metrics exports to Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class ServerMetrics:
    """The counters and gauges of one server, in a registry of its own so that two servers in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("requests", "Requests answered.", "route", "status")
        self.request_seconds = self._histogram("request_seconds", "Seconds until a request ended.", _SECONDS, "route")
        self.waiting = self._gauge("waiting_requests", "Requests in the queue.")
        self.running = self._gauge("running_images", "Images being sampled.")
        self.images = self._counter("images", "Images sampled to the end.", "method")
        self.steps = self._counter("denoising_steps", "Denoising steps of batches.")
        self.batch_images = self._histogram("batch_images", "Images per batch.", (1, 2, 4, 8, 16, 32))
        self.batch_seconds = self._histogram("batch_seconds", "Seconds to sample a batch.", _SECONDS)
        self.abandoned = self._counter("abandoned_batches", "Batches stopped because nobody waited for them.")
        self.failed = self._counter("failed_batches", "Batches that ended in an error.")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"nulltta_{name}_total", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"nulltta_{name}", about, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"nulltta_{name}", about, labels, buckets=buckets, registry=self.registry)
