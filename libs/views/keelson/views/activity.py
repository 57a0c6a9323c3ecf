"""The projection `activity`: one readable line per event, whatever its type.

The line is made from the event's type and fields alone, so that a new aggregate has its lines without a word here.
"""

from datetime import datetime
from functools import cache

from keelson.events import ActorType, Envelope, Event
from keelson.views.changes import Change, Put
from keelson.views.projection import Projection
from keelson.views.table import Row, Table

# A line stays a line: beyond this, a value is cut.
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
    append_only=True,
)

ACTIVITY = Projection("activity", version=1, tables=(ACTIVITY_TABLE,))


@ACTIVITY.on(Event)
def happened(envelope: Envelope, event: Event) -> tuple[Change, ...]:
    """Write the event's line."""
    row = Put(
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
    return (row,)


def summarize(envelope: Envelope, event: Event) -> str:
    """Give the line: `operator created app app_01j… (name shop): the first one`."""
    line = f"{envelope.actor_id} {_predicate(envelope.type)} {envelope.aggregate_id}"
    details = []
    for field, words in _fields(type(event)):
        text = _describe(getattr(event, field))
        if text is not None:
            details.append(words + text)
    if details:
        line = f"{line} ({', '.join(details)})"
    return f"{line}: {envelope.reason}" if envelope.reason else line


@cache
def _predicate(event_type: str) -> str:
    """Give `created app` for app.created, `changed status of deploy` for deploy.status_changed."""
    aggregate, _, happening = event_type.partition(".")
    *what, verb = happening.split("_")
    return f"{verb} {' '.join(what)} of {aggregate}" if what else f"{verb} {aggregate}"


@cache
def _fields(event_class: type[Event]) -> tuple[tuple[str, str], ...]:
    """Give the event's fields, each with the words that come before its value."""
    return tuple((field, f"{field.replace('_', ' ')} ") for field in event_class.__struct_fields__)


def _describe(value: object) -> str | None:
    """Give a value as words, or None for what no line should hold: texts of maps and nested structs say too much."""
    if isinstance(value, str):
        return value if len(value) <= MAX_DETAIL_LENGTH else f"{value[:MAX_DETAIL_LENGTH]}…"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict) and value:
        return _describe_map(value)
    return None


def _describe_map(value: dict[str, object]) -> str:
    names = sorted(value)
    if isinstance(value[names[0]], int):
        names = [f"{name}={value[name]}" for name in names]
    return " ".join(names)
