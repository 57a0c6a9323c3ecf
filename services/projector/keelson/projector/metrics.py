"""Metrics of projections, for Prometheus."""

from collections.abc import Callable
from functools import cache
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from keelson.service.standing import Standing

_LABELS = ("projection",)
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

EVENTS = Counter("keelson_projection_events_total", "Events that this replica applied", _LABELS)
PAGE_SECONDS = Histogram(
    "keelson_projection_page_seconds", "From a page read to its commit", _LABELS, buckets=_BUCKETS_S
)
CHECKPOINT = Gauge("keelson_projection_checkpoint", "The position up to which the views are complete", _LABELS)
LAG_EVENTS = Gauge("keelson_projection_lag_events", "Head minus checkpoint", _LABELS)
LAG_SECONDS = Gauge("keelson_projection_lag_seconds", "Age of the oldest event that is not applied", _LABELS)
RUNNING = Gauge(
    "keelson_projection_running", "1 if the projection runs, 0 if it is stopped or behind the schema", _LABELS
)
HELD = Gauge("keelson_projection_held", "1 if this replica holds the projection's lease", _LABELS)
HEAD = Gauge("keelson_log_head", "The position of the last event")
READ_AT = Gauge("keelson_projection_read_timestamp_seconds", "When it was last read how the projections stand")


def page_applied(projection: str, events: int, seconds: float) -> None:
    """Count a page that was applied."""
    applied, lasted = _of_pages(projection)
    applied.inc(events)
    lasted.observe(seconds)


@cache
def _of_pages(projection: str) -> tuple[Any, Any]:
    return EVENTS.labels(projection), PAGE_SECONDS.labels(projection)


def watch_lease(projection: str, holds: Callable[[], bool]) -> None:
    """Show from now on whether this replica holds a lease; not as last read, since a replica may be cut off."""
    HELD.labels(projection).set_function(holds)


def show_standing(standing: Standing) -> None:
    """Show how the projections stand, as of the last look."""
    READ_AT.set_to_current_time()
    HEAD.set(standing.head)
    for item in standing.items:
        CHECKPOINT.labels(item.name).set(item.checkpoint)
        LAG_EVENTS.labels(item.name).set(item.lag_events)
        LAG_SECONDS.labels(item.name).set(item.lag_s)
        RUNNING.labels(item.name).set(item.state == "running")
