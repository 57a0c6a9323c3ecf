"""When nodes were heard last: joined when a node is read, for heartbeats are no events and in no view."""

from collections.abc import Sequence
from datetime import datetime

from keelson.access import Grants
from keelson.log.database import Database
from keelson.log.queries import load
from keelson.query.reads import Row
from keelson.views.placement import NodeRow

_READ_HEARTBEATS = load(__file__, "read_heartbeats")


class Node(NodeRow, frozen=True, kw_only=True):
    """A node with the time of its last heartbeat; null if it never had one."""

    heartbeat_at: datetime | None


async def with_heartbeats(db: Database, rows: Sequence[Row], _grants: Grants) -> list[Row]:
    """Give rows of nodes with their last heartbeats as of now, however old the rows are: one statement for all."""
    records = await db.fetch(_READ_HEARTBEATS, [row["id"] for row in rows]) if rows else []
    heard: dict[str, datetime] = {record["node_id"]: record["heartbeat_at"] for record in records}
    return [{**row, "heartbeat_at": heard.get(row["id"])} for row in rows]


def state_of(_row: Row) -> None:
    """Give what an entity tag of a node must tell apart beside its version: nothing, so that it serves If-Match.

    A 304 says that the node is the same, not when it was heard.
    """
