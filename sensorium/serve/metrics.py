"""Prometheus metrics: requests, their latency, and the size of batches. Never what requests held."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TIME_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("sensorium_requests", "Requests answered.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "sensorium_request_seconds",
            "From the last byte of a request to the last of its answer.",
            ["route"],
            buckets=TIME_BUCKETS,
            registry=self.registry,
        )
        self.together = Histogram(
            "sensorium_batch_rows",
            "Rows asked of the model together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.model = Histogram(
            "sensorium_batch_seconds",
            "What the model took for rows asked together.",
            buckets=TIME_BUCKETS,
            registry=self.registry,
        )

    def gauge(self, name: str, words: str, value: Callable[[], float]) -> None:
        """Register a number that is looked up when it is read."""
        Gauge(f"sensorium_{name}", words, registry=self.registry).set_function(value)

    def batch(self, requests: int, rows: int, seconds: float) -> None:
        """Observe a batch."""
        self.together.observe(rows)
        self.model.observe(seconds)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Observe a request that was answered."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All numbers, in Prometheus' text format."""
        return generate_latest(self.registry)
