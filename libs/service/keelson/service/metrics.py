"""Metrics of HTTP and of pools, for Prometheus. Every label's values are bounded: a client cannot make new ones."""

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from keelson.log.database import Pool

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REQUEST = ("service", "route", "method", "status")

REQUESTS = Counter("keelson_http_requests_total", "Requests answered; status 499 is a client that left", _REQUEST)
SECONDS = Histogram(
    "keelson_http_request_seconds",
    "From the headers to the end of the answer",
    ("service", "route"),
    buckets=_BUCKETS_S,
)
IN_FLIGHT = Gauge("keelson_http_in_flight", "Requests being handled", ("service",))
POOL = Gauge("keelson_pool_connections", "Connections to the database that are open, and idle", ("service", "state"))


class HttpMetrics:
    """The HTTP metrics of one service; the children of each label set are looked up once."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._requests: dict[tuple[str, str, int], Any] = {}
        self._seconds: dict[str, Any] = {}
        self.in_flight = 0
        IN_FLIGHT.labels(service).set_function(lambda: self.in_flight)

    def record(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; `route` is the template of its path, never the path."""
        key = (route, method, status)
        counter = self._requests.get(key)
        if counter is None:
            counter = self._add(key)
        counter.inc()
        self._seconds[route].observe(seconds)

    def _add(self, key: tuple[str, str, int]) -> Any:
        route, method, status = key
        bounded = method if method in METHODS else "OTHER"
        counter = REQUESTS.labels(self._service, route, bounded, status)
        if bounded == method:
            self._requests[key] = counter
        self._seconds.setdefault(route, SECONDS.labels(self._service, route))
        return counter


def watch_pool(service: str, pool: Pool) -> None:
    """Show a pool's connections from now on."""
    POOL.labels(service, "open").set_function(lambda: pool.size)
    POOL.labels(service, "idle").set_function(lambda: pool.idle)


async def show_metrics(_request: Request) -> Response:
    """Answer /metrics: everything in the process's registry."""
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
