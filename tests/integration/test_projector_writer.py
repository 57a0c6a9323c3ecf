"""The generated SQL does what the fold says, on a real PostgreSQL: the same rows as event by event in memory."""

from random import Random

import pytest

from keelson.events import Registry
from keelson.log.database import Connection
from keelson.projector.batch import Batch
from keelson.projector.checkpoints import create_indexes, create_tables
from keelson.projector.folding import PoisonError, Stop, fold_batch
from keelson.projector.writer import write_rows
from keelson.views import PROJECTIONS, Projection, sql
from keelson.views.memory import Memory
from keelson.views.projection import MissingRowError
from keelson.views.table import Table
from support.database import Database
from support.made_up import MADE_UP, Changed, Happened, history, random_changes
from support.projecting import connected, read_rows, rows_of

REGISTRY = Registry([Changed])
HISTORIES = 150


async def apply_in_pages(connection: Connection, events: list[Happened], random: Random) -> int | None:
    """Apply pages of random sizes until the first event that cannot be applied; give its position."""
    at = 0
    while at < len(events):
        size = random.randint(1, 5)
        page = [envelope for envelope, _ in events[at : at + size]]
        stop = await apply_page(connection, Batch(at, page, len(events), REGISTRY, epoch=""))
        if stop is not None:
            return stop
        at += size
    return None


async def apply_page(connection: Connection, batch: Batch) -> int | None:
    folded = fold_batch(MADE_UP, batch, frozenset())
    stop: Stop | None = folded.stop
    try:
        async with connection.transaction():
            await write_rows(connection, folded.fold)
    except PoisonError as error:
        earlier = await apply_page(connection, batch.before(error.position))
        return error.position if earlier is None else earlier
    return None if stop is None else stop.position


async def test_pages_in_sql_come_to_what_events_come_to_in_memory(database: Database) -> None:
    poisoned = 0
    async with connected(database.projector_dsn) as connection:
        for seed in range(HISTORIES):
            random = Random(seed)
            events = history(random_changes(random, random.randint(1, 25), keys="ab"))
            async with connection.transaction():
                await create_tables(connection, MADE_UP, sql.LIVE)
            memory, poison = Memory(MADE_UP), None
            for envelope, event in events:
                before = rows_of(memory)
                try:
                    memory.apply(envelope, event)
                except MissingRowError:
                    poison = envelope.position
                    break
            expected = rows_of(memory) if poison is None else before

            assert await apply_in_pages(connection, events, random) == poison
            assert await read_rows(connection, MADE_UP) == expected
            poisoned += poison is not None
    assert 0 < poisoned < HISTORIES


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
async def test_tables_are_created_as_declared(database: Database, projection: Projection) -> None:
    async with connected(database.projector_dsn) as connection:
        await create_tables(connection, projection, sql.NEXT)
        await create_indexes(connection, projection, sql.NEXT)
        for table in projection.tables:
            assert await read_columns(connection, table) == [
                (column.name, column.sql_type, column.nullable) for column in table.columns
            ]
            indexes = await connection.fetchval(
                "SELECT count(*) FROM pg_indexes WHERE schemaname = 'views_next' AND tablename = $1", table.name
            )
            assert indexes == 1 + len(table.indexes)


async def read_columns(connection: Connection, table: Table) -> list[tuple[str, str, bool]]:
    rows = await connection.fetch(
        """
        SELECT attname, format_type(atttypid, NULL), NOT attnotnull FROM pg_attribute
        WHERE attrelid = to_regclass('views_next.' || $1) AND attnum > 0 ORDER BY attnum
        """,
        table.name,
    )
    names = {"timestamp with time zone": "timestamptz"}
    return [(name, names.get(kind, kind), nullable) for name, kind, nullable in rows]


async def test_creating_tables_again_replaces_those_of_the_same_projection_alone(database: Database) -> None:
    async with connected(database.projector_dsn) as connection:
        await connection.execute("CREATE TABLE views.somebody_elses (id text)")
        await create_tables(connection, MADE_UP, sql.LIVE)
        await create_tables(connection, MADE_UP, sql.LIVE)

        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'views' ORDER BY 1")
        assert [row[0] for row in names] == ["parts", "somebody_elses", "things"]


async def test_the_query_role_may_read_views_and_not_write_them(database: Database) -> None:
    async with connected(database.projector_dsn) as projector, connected(database.query_dsn) as query:
        await create_tables(projector, MADE_UP, sql.LIVE)

        assert await query.fetch("SELECT * FROM views.things") == []
        with pytest.raises(Exception, match="permission denied"):
            await query.execute("DELETE FROM views.things")
