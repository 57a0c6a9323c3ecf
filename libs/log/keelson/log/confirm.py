"""What appends nothing is confirmed too: a refusal on stale state would be as wrong as an event (F13a)."""

from collections.abc import Collection

import msgspec

from keelson.events.ids import AggregateId, Position
from keelson.log.database import Database
from keelson.log.decision import IdempotencyKey, ReadSet, Replayed
from keelson.log.queries import load

_CONFIRM = load(__file__, "confirm")
_READ_SCOPE = load(__file__, "read_scope")
_READ_HOLDER = load(__file__, "read_holder")
_READ_HOLDERS = load(__file__, "read_holders")
_COUNT_HELD = load(__file__, "count_held")


class KnownKey(msgspec.Struct, frozen=True):
    """What was answered under a key, and the keyed hash of the request that it was answered to."""

    request_hash: bytes
    replayed: Replayed


class Confirmation(msgspec.Struct, frozen=True):
    """The log in one snapshot: where it ended, whether a read set had moved, and what the key was answered."""

    epoch: str
    position: Position
    moved: bool
    known_key: KnownKey | None


class ScopeState(msgspec.Struct, frozen=True):
    """What a claim scope holds; the version joins the read set."""

    held: int
    amount: int
    version: int


async def confirm(db: Database, key: IdempotencyKey | None, reads: ReadSet) -> Confirmation:
    """Compare a read set with the log, and look the key up, in one snapshot and one round trip.

    Raises LookupError on a log that was never begun.
    """
    row = await db.fetchrow(
        _CONFIRM,
        *(key or (None, None, None, None)),
        list(reads.aggregates),
        list(reads.aggregates.values()),
        list(reads.scopes),
        list(reads.scopes.values()),
        [scope for scope, _ in reads.keys],
        [key for _, key in reads.keys],
        list(reads.keys.values()),
    )
    if row is None:
        raise LookupError("the log has no head: migrate the database first")
    known_key = None
    if row["command_id"] is not None:
        replayed = Replayed(row["command_id"], row["first_position"], row["last_position"], row["answer"])
        known_key = KnownKey(row["request_hash"], replayed)
    return Confirmation(row["epoch"], row["position"], row["moved"], known_key)


async def read_scope(db: Database, scope: str) -> ScopeState:
    """Give what a scope holds: nothing, at version 0, if it was never used."""
    row = await db.fetchrow(_READ_SCOPE, scope)
    return ScopeState(*row) if row else ScopeState(0, 0, 0)


async def read_holder(db: Database, scope: str, key: str) -> AggregateId | None:
    """Give the aggregate that holds a key, if one does."""
    holder: AggregateId | None = await db.fetchval(_READ_HOLDER, scope, key)
    return holder


async def read_holders(db: Database, scope: str) -> list[AggregateId]:
    """Give the aggregates that hold keys in a scope, each once, ordered by id."""
    return [row["aggregate_id"] for row in await db.fetch(_READ_HOLDERS, scope)]


async def count_held(db: Database, scope: str, aggregate_ids: Collection[str]) -> int:
    """Count the keys that these aggregates hold in a scope."""
    held: int = await db.fetchval(_COUNT_HELD, scope, list(aggregate_ids))
    return held
