"""What rows of a collection are completed with when they are read: what is known beside the log, and is in no view."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from keelson.access import Grants
from keelson.log.database import Database
from keelson.query import heartbeats, people
from keelson.query.etags import write_etag
from keelson.query.reads import Row, View


class Completion(NamedTuple):
    """The rows' type once they are complete, how they become so, and what of it their entity tag must tell apart."""

    row: type[msgspec.Struct]
    complete: Callable[[Database, Sequence[Row], Grants], Awaitable[list[Row]]]
    state_of: Callable[[Row], str | None]


# One line per collection.
COMPLETIONS = {
    "members": Completion(people.Member, people.with_people, people.state_of),
    "nodes": Completion(heartbeats.Node, heartbeats.with_heartbeats, heartbeats.state_of),
}


def row_type(view: View) -> type[msgspec.Struct]:
    """Give the type of a collection's rows as clients see them."""
    completion = COMPLETIONS.get(view.name)
    return completion.row if completion else view.table.row


async def complete(view: View, db: Database, rows: Sequence[Row], grants: Grants) -> Sequence[Row]:
    """Complete rows of a collection for a reader; those of most are complete."""
    completion = COMPLETIONS.get(view.name)
    return await completion.complete(db, rows, grants) if completion else rows


def etag_of(view: View, row: Row, epoch: str | None) -> str:
    """Give the entity tag of a complete row, changed last in an epoch; None: in the log's first."""
    completion = COMPLETIONS.get(view.name)
    return write_etag(row["resource_version"], epoch, completion.state_of(row) if completion else None)
