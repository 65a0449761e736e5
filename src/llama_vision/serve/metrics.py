"""The server's metrics for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llama_vision.core.usage import Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, num_active: Callable[[], int]) -> None:
        """Register them; `num_active` counts the requests in work."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "llama_vision_requests", "Requests by path and status", ["path", "status"], registry=registry
        )
        self._tokens = Counter("llama_vision_tokens", "Tokens by direction", ["direction"], registry=registry)
        self._duration = Histogram(
            "llama_vision_request_duration_seconds",
            "From request to last byte",
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_event = Histogram(
            "llama_vision_time_to_first_event_seconds",
            "From request to the start of the reply, the wait in the queue included",
            buckets=_SECONDS,
            registry=registry,
        )
        active = Gauge("llama_vision_requests_active", "Requests in work or waiting", registry=registry)
        active.set_function(num_active)

    def count_request(
        self, path: str, status: int, seconds: float, first_event_s: float | None, usage: Usage
    ) -> None:
        """Count a request that has ended."""
        self._requests.labels(path, str(status)).inc()
        self._duration.observe(seconds)
        if first_event_s is not None:
            self._first_event.observe(first_event_s)
        self._tokens.labels("input").inc(usage.input_tokens or 0)
        self._tokens.labels("output").inc(usage.output_tokens or 0)

    def render(self) -> bytes:
        """Write them in Prometheus' text format."""
        return generate_latest(self._registry)
