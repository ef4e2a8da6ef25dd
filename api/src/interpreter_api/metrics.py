"""Prometheus metrics: one registry an app, base units, and never an id as a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_STATES = ("starting", "warm", "claimed", "dying")


class Metrics:
    """What the server counts. Labels come from fixed sets: route templates, methods, outcomes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "interpreter_http_requests_total",
            "HTTP requests that were answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "interpreter_http_request_seconds",
            "Time to the end of the answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._executions = Counter(
            "interpreter_executions_total", "Executions that ended.", ("status",), registry=self.registry
        )
        self._execution_seconds = Histogram(
            "interpreter_execution_seconds",
            "Time an execution took in its sandbox.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._sandboxes = Gauge("interpreter_sandboxes", "Sandboxes by state.", ("state",), registry=self.registry)
        self._ready = Gauge("interpreter_ready", "1 where the part works.", ("part",), registry=self.registry)
        self._refused_keys = Counter(
            "interpreter_refused_credentials_total", "Requests with no valid credential.", registry=self.registry
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request; ``route`` is the template, not the path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def execution(self, status: str, seconds: float) -> None:
        """One ended execution: ``ok``, or the error code of a result (``user_error``, ``timeout``...)."""
        self._executions.labels(status).inc()
        self._execution_seconds.observe(seconds)

    def sandboxes(self, counts: Mapping[str, int]) -> None:
        """How many sandboxes are in each state now."""
        for state in _STATES:
            self._sandboxes.labels(state).set(counts.get(state, 0))

    def ready(self, part: str, ready: bool) -> None:
        """Whether ``database`` or ``execution`` works."""
        self._ready.labels(part).set(ready)

    def refused_credential(self) -> None:
        """One request without a valid key or token."""
        self._refused_keys.inc()

    def render(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self.registry)
