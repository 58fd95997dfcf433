"""GET /metrics: the schedulers' counters and the requests' durations for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ggq.runtime.server.hosting.base import Host

__all__ = ["Metrics"]

_COUNTERS = {
    "prompt_tokens": "Prompt tokens of started requests.",
    "cached_tokens": "Prompt tokens found in the cache.",
    "generated_tokens": "Generated tokens.",
    "drafted_tokens": "Guesses at tokens of answers that were checked.",
    "accepted_tokens": "Guesses that were right.",
    "steps": "Steps of the engine.",
    "busy_seconds": "Time spent in steps of the engine.",
    "finished": "Answers that came to their end.",
    "cancelled": "Answers given up by the client.",
    "failed": "Answers that failed.",
    "refused": "Requests refused because the queue was full.",
}
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """One server's metrics."""

    def __init__(self, host: Host):
        self._host, self._registry = host, CollectorRegistry()
        self._registry.register(self)
        labels = ("path", "status")
        self._requests = Counter(
            "ggq_http_requests", "HTTP requests.", labels, registry=self._registry
        )
        self._seconds = Histogram(
            "ggq_http_seconds", "Time to the end of the answer.", ("path",),
            registry=self._registry, buckets=_SECONDS,
        )  # fmt: skip

    def collect(self) -> Iterator[Any]:
        """Yield the sums over all models; prometheus_client calls it."""
        stats, schedulers = self._host.stats(), self._host.schedulers()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"ggq_{name}", text, getattr(stats, name))
        gauges = {
            "requests_running": ("Answers being written.", sum(s.n_running for s in schedulers)),
            "requests_waiting": ("Answers in the queue.", sum(s.n_waiting for s in schedulers)),
            "cache_positions_used": (
                "Positions in use.",
                sum(s.used_positions for s in schedulers),
            ),
            "models_loaded": ("Models in memory.", len(schedulers)),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"ggq_{name}", text, value)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count one HTTP request; ``path`` must be one of the server's routes."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
