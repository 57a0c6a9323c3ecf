"""Metrics of all services, for Prometheus. Every label's values are bounded: a client cannot make new ones.

Children of label sets are looked up once, never per request.
"""

from collections.abc import Callable
from importlib.metadata import version
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
PROBLEMS = Counter("keelson_http_problems_total", "Refusals, by the code of their problem", ("service", "code"))
POOL = Gauge("keelson_pool_connections", "Connections to the database that are open, and idle", ("service", "state"))


POOL_MAX = Gauge("keelson_pool_max_connections", "Connections that may be open", ("service",))
POOL_WAITING = Gauge("keelson_pool_waiting", "Callers that wait for a connection", ("service",))
SERVING = Gauge(
    "keelson_serving", "1 while requests are answered, 0 while the service starts, waits or stops", ("service",)
)
BUILD = Gauge("keelson_build_info", "1; its labels say what runs", ("service", "version"))


class HttpMetrics:
    """The HTTP metrics of one service; the children of each label set are looked up once."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._requests: dict[tuple[str, str, int], Any] = {}
        self._seconds: dict[str, Any] = {}
        self._problems: dict[str, Any] = {}
        self.in_flight = 0
        IN_FLIGHT.labels(service).set_function(lambda: self.in_flight)

    def record(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count a request; `route` is the template of its path, never the path. None: it took as long as it had to."""
        key = (route, method, status)
        counter = self._requests.get(key)
        if counter is None:
            counter = self._add(key)
        counter.inc()
        if seconds is not None:
            self._seconds[route].observe(seconds)

    def refuse(self, code: str) -> None:
        """Count a refusal; `code` is one of PROBLEMS."""
        counter = self._problems.get(code)
        if counter is None:
            counter = self._problems[code] = PROBLEMS.labels(self._service, code)
        counter.inc()

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
    POOL_MAX.labels(service).set_function(lambda: pool.max_size)
    POOL_WAITING.labels(service).set_function(lambda: pool.waiting)


def watch_service(service: str, is_serving: Callable[[], bool]) -> None:
    """Show what runs, and whether it serves, from now on."""
    BUILD.labels(service, version("keelson-service")).set(1)
    SERVING.labels(service).set_function(is_serving)


async def show_metrics(_request: Request) -> Response:
    """Answer /metrics: everything in the process's registry."""
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
