"""Reading the log: by position, by aggregate, filtered. Each function is one statement, and so one snapshot (F3)."""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Literal

import msgspec

from keelson.events import Envelope
from keelson.events.ids import Position
from keelson.log.database import Database
from keelson.log.queries import load

# How many positions one filtered request may examine; a page may come back empty with a cursor to go on from.
WINDOW = 10_000
# What the payloads of a page may hold, so that whoever reads thousands of events at once is not killed by large ones.
MAX_PAGE_BYTES = 8 * 1024 * 1024

_READ_HEAD = load(__file__, "read_head")
_READ_PAGE = load(__file__, "read_page")
_READ_AGGREGATE = load(__file__, "read_aggregate")
_READ_ENV = load(__file__, "read_env")
_READ_COMMAND_END = load(__file__, "read_command_end")
_READ_FILTERED = load(__file__, "read_filtered")
_READ_POSITION_AT = load(__file__, "read_position_at")


class Head(msgspec.Struct, frozen=True):
    """Where the log ends, and in which lineage."""

    epoch: str
    position: Position
    recorded_at: datetime


class Page(msgspec.Struct, frozen=True):
    """Events in order of position, ending where a command ends; `head` is of the same snapshot."""

    envelopes: list[Envelope]
    head: Position
    epoch: str


class FilteredPage(msgspec.Struct, frozen=True):
    """The matching events of what was examined; `examined` is the cursor to go on from, match or not (F4)."""

    envelopes: list[Envelope]
    examined: Position
    head: Position
    epoch: str


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for; None matches everything. Fields stand in the order of the statement's parameters."""

    org_id: str | None = None
    project_id: str | None = None
    app_id: str | None = None
    env_id: str | None = None
    node_id: str | None = None
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    type: str | None = None
    actor_id: str | None = None
    request_id: str | None = None
    correlation_id: str | None = None


async def read_head(db: Database) -> Head:
    """Give the head. Raises LookupError on a log that was never begun (not migrated)."""
    row = await db.fetchrow(_READ_HEAD)
    if row is None:
        raise LookupError("the log has no head: migrate the database first")
    return Head(*row)


async def read_page(db: Database, after: Position, limit: int, *, max_bytes: int = MAX_PAGE_BYTES) -> Page:
    """Give the events after a position, unfiltered; the rest of one command may exceed what fills a page."""
    rows = await db.fetch(_READ_PAGE, after, limit, max_bytes)
    if not rows:
        raise LookupError("the log has no head: migrate the database first")
    envelopes = [Envelope(*islice(row, 2, None)) for row in rows] if rows[0]["position"] is not None else []
    return Page(envelopes, rows[0]["head"], rows[0]["epoch"])


async def read_aggregate(db: Database, aggregate_id: str, after_seq: int = 0, limit: int = 1000) -> list[Envelope]:
    """Give an aggregate's events after a seq, in order; empty if there are none."""
    return [Envelope(*row) for row in await db.fetch(_READ_AGGREGATE, aggregate_id, after_seq, limit)]


async def read_env(
    db: Database, env_id: str, types: Sequence[str], *, after: Position, until: Position, limit: int
) -> list[Envelope]:
    """Give events after a position and up to another, in order, of an environment's aggregates of these types."""
    return [Envelope(*row) for row in await db.fetch(_READ_ENV, env_id, after, until, types, limit)]


async def read_command_end(db: Database, position: int) -> Position | None:
    """Give the last position up to this one at which a command ends, 0 if there is none; None beyond the head."""
    found: Position | None = await db.fetchval(_READ_COMMAND_END, position)
    return found


async def read_filtered(
    db: Database, after: Position, limit: int, sought: Filter, *, order: Literal["asc", "desc"] = "asc"
) -> FilteredPage:
    """Give matching events within a bounded window, ending where a command ends (descending: where one starts).

    Ascending, `examined` is the next `after`; it equals `head` at the end. Descending, `after` means below (0: from
    the head) and `examined` is the next one, 0 when the log's first event was examined.
    """
    rows = await db.fetch(_READ_FILTERED, after, limit, WINDOW, order == "desc", *msgspec.structs.astuple(sought))
    if not rows:
        raise LookupError("the log has no head: migrate the database first")
    first = rows[0]
    envelopes = [Envelope(*islice(row, 3, None)) for row in rows] if first["position"] is not None else []
    return FilteredPage(envelopes, first["examined"], first["head"], first["epoch"])


async def read_position_at(db: Database, time: datetime) -> Position:
    """Give the last position recorded at or before a time; 0 if there is none. Takes log2(head) index look-ups."""
    return Position(await db.fetchval(_READ_POSITION_AT, time))
