"""The projection `activity`: one readable line per event, whatever its type.

The line is made from the event's type and fields alone, so that a new aggregate has its lines without a word here.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache

from keelson.events import ActorType, Envelope, Event
from keelson.views.changes import Change, Put
from keelson.views.projection import Projection
from keelson.views.table import Row, Table

# A line stays a line: beyond this, text is cut.
MAX_DETAIL_LENGTH = 200


class ActivityRow(Row, frozen=True, kw_only=True):
    """Who did what, to what, why and when. `position` is the event's and the row's key."""

    type: str
    aggregate_id: str
    aggregate_type: str
    org_id: str | None
    project_id: str | None
    app_id: str | None
    env_id: str | None
    node_id: str | None
    actor_type: ActorType
    actor_id: str
    reason: str | None
    request_id: str
    recorded_at: datetime
    summary: str


ACTIVITY_TABLE = Table(
    name="activity",
    row=ActivityRow,
    key=("position",),
    indexes=(("org_id", "position"), ("env_id", "position")),
)

ACTIVITY = Projection("activity", version=1, tables=(ACTIVITY_TABLE,))


@ACTIVITY.on(Event)
def happened(envelope: Envelope, event: Event) -> Iterator[Change]:
    """Write the event's line."""
    yield Put(
        ACTIVITY_TABLE,
        {
            "type": envelope.type,
            "aggregate_id": envelope.aggregate_id,
            "aggregate_type": envelope.aggregate_type,
            "org_id": envelope.org_id,
            "project_id": envelope.project_id,
            "app_id": envelope.app_id,
            "env_id": envelope.env_id,
            "node_id": envelope.node_id,
            "actor_type": envelope.actor_type,
            "actor_id": envelope.actor_id,
            "reason": envelope.reason,
            "request_id": envelope.request_id,
            "recorded_at": envelope.recorded_at,
            "summary": summarize(envelope, event),
        },
    )


def summarize(envelope: Envelope, event: Event) -> str:
    """Give the line: `operator created app app_01j… (name shop): the first one`."""
    line = f"{envelope.actor_id} {_predicate(envelope.type)} {envelope.aggregate_id}"
    details = ", ".join(
        f"{field.replace('_', ' ')} {_cut(text)}"
        for field in event.__struct_fields__
        if (text := _describe(getattr(event, field))) is not None
    )
    if details:
        line = f"{line} ({details})"
    return f"{line}: {envelope.reason}" if envelope.reason else line


@cache
def _predicate(event_type: str) -> str:
    """Give `created app` for app.created, `changed status of deploy` for deploy.status_changed."""
    aggregate, _, happening = event_type.partition(".")
    *what, verb = happening.split("_")
    return f"{verb} {' '.join(what)} of {aggregate}" if what else f"{verb} {aggregate}"


def _describe(value: object) -> str | None:
    """Give a value as words, or None for what no line should hold: texts of maps and nested structs say too much."""
    if isinstance(value, str | int):
        return str(value)
    if not isinstance(value, Mapping) or not value:
        return None
    if all(isinstance(each, int) for each in value.values()):
        return " ".join(f"{name}={value[name]}" for name in sorted(value))
    return " ".join(sorted(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_LENGTH else f"{text[:MAX_DETAIL_LENGTH]}…"
