"""The audit log: events as they are shown, and pages of them."""

from datetime import datetime, timedelta
from typing import Literal, Self

import msgspec
from msgspec.structs import replace

from keelson.events import REGISTRY, Envelope, Registry, UnknownEventError
from keelson.events.ids import Position
from keelson.events.registry import encode
from keelson.log.database import Database
from keelson.log.read import Filter, FilteredPage, read_filtered, read_head, read_position_at
from keelson.query.confinement import Reach
from keelson.query.places import write_cursor

# PostgreSQL keeps times to the microsecond; the instant before one is this much earlier.
_INSTANT = timedelta(microseconds=1)


class EventItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event as the audit log shows it: `payload` in `version`, whatever the `stored_version` was."""

    position: int
    type: str
    version: int
    stored_version: int
    aggregate_id: str
    aggregate_type: str
    seq: int
    org_id: str | None = None
    project_id: str | None = None
    app_id: str | None = None
    env_id: str | None = None
    node_id: str | None = None
    actor_type: str
    actor_id: str
    reason: str | None = None
    request_id: str
    correlation_id: str | None = None
    causation_id: int | None = None
    command_id: str
    command_end: bool
    recorded_at: datetime
    payload: msgspec.Raw

    @classmethod
    def of(cls, envelope: Envelope) -> Self:
        """Show an event."""
        version, payload = upcast(envelope)
        return cls(
            position=envelope.position,
            type=envelope.type,
            version=version,
            stored_version=envelope.version,
            aggregate_id=envelope.aggregate_id,
            aggregate_type=envelope.aggregate_type,
            seq=envelope.seq,
            org_id=envelope.org_id,
            project_id=envelope.project_id,
            app_id=envelope.app_id,
            env_id=envelope.env_id,
            node_id=envelope.node_id,
            actor_type=envelope.actor_type,
            actor_id=envelope.actor_id,
            reason=envelope.reason,
            request_id=envelope.request_id,
            correlation_id=envelope.correlation_id,
            causation_id=envelope.causation_id,
            command_id=envelope.command_id,
            command_end=envelope.command_end,
            recorded_at=envelope.recorded_at,
            payload=msgspec.Raw(payload.encode()),
        )


def upcast(envelope: Envelope, registry: Registry = REGISTRY) -> tuple[int, str]:
    """Give the newest version and the payload in it; what a newer writer wrote, and what is broken, as it is stored.

    An audit log that fails on one odd event hides all the others.
    """
    newest = registry.newest.get(envelope.type)
    if newest is None or envelope.version >= newest.event_version:
        return envelope.version, envelope.payload
    try:
        event = registry.decode(envelope.type, envelope.version, envelope.payload)
    except (UnknownEventError, msgspec.MsgspecError):
        return envelope.version, envelope.payload
    return event.event_version, encode(event)


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the audit log. `after` is exclusive: above it ascending, below it descending, None the end."""

    after: Position | None
    limit: int
    order: Literal["asc", "desc"]
    sought: Filter
    since: datetime | None = None
    until: datetime | None = None


class EventsPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events that matched, where to go on, and the head of the same snapshot."""

    envelopes: list[Envelope]
    next: Position | None
    head: Position
    epoch: str

    @property
    def next_cursor(self) -> str | None:
        """The next `after`; None when the first event was examined."""
        return None if self.next is None else write_cursor(self.epoch, self.next)


async def read_events(db: Database, query: EventsQuery, *, reach: Reach) -> EventsPage:
    """Give one page of what is within reach: a single statement, with times some more to find their positions."""
    if reach.org_id is not None:
        if query.sought.org_id not in (None, reach.org_id):
            return await _read_nothing(db, query)
        query = replace(query, sought=replace(query.sought, org_id=reach.org_id))
    return await (_read_ascending if query.order == "asc" else _read_descending)(db, query)


async def _read_nothing(db: Database, query: EventsQuery) -> EventsPage:
    """Give the page of somebody else's events: all of the log counts as examined, and nothing matched."""
    head = await read_head(db)
    following = head.position if query.order == "asc" else None
    return EventsPage(envelopes=[], next=following, head=head.position, epoch=head.epoch)


async def _read_ascending(db: Database, query: EventsQuery) -> EventsPage:
    after = query.after or Position(0)
    if query.since is not None:
        after = max(after, await read_position_at(db, query.since - _INSTANT))
    last = await _read_last(db, query.until) if query.until is not None else None
    page = await read_filtered(db, after, query.limit, query.sought, order="asc")
    # Beyond the last event in time nothing can match: all the rest counts as examined.
    examined = page.head if last is not None and page.examined >= last else page.examined
    return _cut(page, query, examined)


async def _read_descending(db: Database, query: EventsQuery) -> EventsPage:
    # To the reader of the log, 0 means from the head; below 0 and below 1 there is nothing alike.
    below = 0 if query.after is None else max(query.after, 1)
    if query.until is not None:
        end = await read_position_at(db, query.until) + 1
        below = min(below, end) if below else end
    first = await read_position_at(db, query.since - _INSTANT) + 1 if query.since is not None else 1
    page = await read_filtered(db, Position(below), query.limit, query.sought, order="desc")
    return _cut(page, query, page.examined if page.examined > first else None)


async def _read_last(db: Database, until: datetime) -> Position | None:
    """Give the position of the last event up to a time; None while the next event may still be of that time."""
    head = await read_head(db)
    return await read_position_at(db, until) if head.recorded_at > until else None


def _cut(page: FilteredPage, query: EventsQuery, following: Position | None) -> EventsPage:
    """Leave out what is outside the times; positions only saved reading most of it."""
    envelopes = [
        each
        for each in page.envelopes
        if (query.since is None or each.recorded_at >= query.since)
        and (query.until is None or each.recorded_at <= query.until)
    ]
    return EventsPage(envelopes=envelopes, next=following, head=page.head, epoch=page.epoch)
