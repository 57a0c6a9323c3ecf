"""Checkpoints: how far each projection is. Every change of one is a compare-and-set on its row."""

from typing import Any, Self

import msgspec

from keelson.log.database import Connection, Database
from keelson.log.queries import load
from keelson.projector.batch import Batch
from keelson.projector.folding import Stop
from keelson.views import Projection, sql

_READ = load(__file__, "read_checkpoint")
_READ_SKIPS = load(__file__, "read_skips")
_CREATE = load(__file__, "create_checkpoint")
_MOVE = load(__file__, "move_checkpoint")
_STOP = load(__file__, "stop_checkpoint")
_OWNED = load(__file__, "owned_relations")
_SEARCH = load(__file__, "search")


class CheckpointMovedError(Exception):
    """The checkpoint is not where this runner left it, or the log not in its epoch. Nothing was written (F17, F26)."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A projection's place: its views hold what the events up to `position` say."""

    version: int
    position: int
    state: str
    error_position: int | None = None

    @classmethod
    def of(cls, row: Any) -> Self:
        """Make one of a row that has these columns."""
        return cls(
            version=row["version"],
            position=row["position"],
            state=row["state"],
            error_position=row["error_position"],
        )


async def read_checkpoint(db: Database, projection: str) -> Checkpoint | None:
    """Give a projection's checkpoint; None before its first start."""
    row = await db.fetchrow(_READ, projection)
    return None if row is None else Checkpoint.of(row)


async def read_skips(db: Database, projection: str) -> frozenset[int]:
    """Give the positions that a projection skips."""
    return frozenset(row["position"] for row in await db.fetch(_READ_SKIPS, projection))


async def begin(connection: Connection, projection: Projection) -> None:
    """Create what a projection owns and its checkpoint at 0, in one transaction, unless another replica does."""
    async with connection.transaction():
        status = await connection.execute(_CREATE, projection.name, projection.version)
        if status == "INSERT 0 1":
            await create_tables(connection, projection, sql.LIVE)
            await create_indexes(connection, projection, sql.LIVE)
            await create_derived(connection, projection, sql.LIVE)


async def create_tables(connection: Connection, projection: Projection, schema: str) -> None:
    """Create a projection's tables, in place of all that it had in that schema. In the caller's transaction."""
    await drop_all(connection, projection, schema)
    for table in projection.tables:
        await connection.execute(sql.create_table(table, schema))
        await connection.execute(sql.mark(table, schema, projection.name))


async def create_indexes(connection: Connection, projection: Projection, schema: str) -> None:
    """Create the indexes of a projection's tables."""
    for table in projection.tables:
        for statement in sql.create_indexes(table, schema):
            await connection.execute(statement)


async def create_derived(connection: Connection, projection: Projection, schema: str) -> None:
    """Create a projection's derived views over its tables in that schema, in the caller's transaction.

    Whoever may read tables that this role makes in the schema may read these views too, by the same default rights.
    """
    for view in projection.derived:
        await connection.fetchval(_SEARCH, schema)
        await connection.execute(sql.create_view(view, schema))
        await connection.execute(sql.mark(view, schema, projection.name))


async def drop_all(connection: Connection, projection: Projection, schema: str) -> None:
    """Drop what a projection made in a schema, under whatever version. In the caller's transaction.

    The views first, as readers lock them: those who wait for a view hold none of its tables.
    """
    for kind, name in await connection.fetch(_OWNED, schema, sql.mark_of(projection.name)):
        await connection.execute(sql.drop(kind, name))


async def move(connection: Connection, projection: Projection, batch: Batch, rate: float) -> None:
    """Move the checkpoint over a batch. Must be a page's first statement: it locks the row that all writers come by.

    Raises CheckpointMovedError.
    """
    values = (batch.start, batch.end, rate, batch.epoch)
    if await connection.execute(_MOVE, projection.name, projection.version, *values) != "UPDATE 1":
        raise CheckpointMovedError(projection.name)


async def stop(connection: Connection, projection: Projection, position: int, epoch: str, why: Stop) -> None:
    """Say that the projection does not go on from its position. Raises CheckpointMovedError."""
    values = (why.state, why.position, why.event_type, why.message, epoch)
    if await connection.execute(_STOP, projection.name, projection.version, position, *values) != "UPDATE 1":
        raise CheckpointMovedError(projection.name)
