"""Replicas of the projector within a test, and what views hold."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from keelson.events import REGISTRY
from keelson.log.database import Connection, Pool, connect, open_pool
from keelson.log.database import Database as LogDatabase
from keelson.log.epochs import Epochs
from keelson.log.listen import Listener
from keelson.log.read import read_page
from keelson.log.tail import LOG_CHANNEL
from keelson.projector.leases import Leases, mint_holder
from keelson.projector.runner import Runner
from keelson.service.lifecycle import background
from keelson.service.standing import ProjectionItem, read_standing
from keelson.views import PROJECTIONS, Projection, sql
from keelson.views.memory import Memory
from support.database import Database
from support.waiting import eventually

Rows = dict[str, list[tuple[Any, ...]]]


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """Lend a connection."""
    connection = await connect(dsn, application_name="keelson-tests")
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def pooled(dsn: str, **settings: Any) -> AsyncIterator[Pool]:
    """Lend a pool as the projector's."""
    pool = await open_pool(dsn, application_name="keelson-tests", **{"lock_timeout": "2000", **settings})
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def replica(database: Database, **options: Any) -> AsyncIterator[Runner]:
    """Run a replica of the projector for as long as the body runs."""
    listener = options.pop("listener", None) or Listener(database.projector_dsn, LOG_CHANNEL, reconnect_delay_s=0.1)
    epochs = options.pop("epochs", None) or Epochs()
    async with pooled(database.projector_dsn, epochs=epochs) as pool:
        leases = Leases(pool, mint_holder())
        runner = Runner(pool=pool, announce_db=pool, listener=listener, leases=leases, epochs=epochs, **options)
        async with background(runner.run()):
            yield runner


async def caught_up(pool: Pool, *names: str, timeout_s: float = 20.0) -> int:
    """Wait until projections (by default all) are at the head and run; give its position."""

    async def is_there() -> int:
        standing = await read_standing(pool)
        wanted = [standing.read_item(name) for name in names or PROJECTIONS]
        done = all(item and item.state == "running" and item.checkpoint == standing.head for item in wanted)
        return standing.head if done else 0

    return await eventually(is_there, timeout_s)


async def item_of(pool: Pool, projection: str) -> ProjectionItem:
    """Give how a projection stands."""
    item = (await read_standing(pool)).read_item(projection)
    assert item is not None
    return item


async def stopped(pool: Pool, projection: str, state: str = "stopped") -> ProjectionItem:
    """Wait until a projection has stopped; give how it stands."""

    async def has_stopped() -> ProjectionItem | None:
        item = (await read_standing(pool)).read_item(projection)
        return item if item is not None and item.state == state else None

    item = await eventually(has_stopped)
    assert item is not None
    return item


async def read_rows(db: LogDatabase, projection: Projection, schema: str = "views") -> Rows:
    """Give all rows of a projection's tables."""
    return {
        table.name: [tuple(row) for row in await db.fetch(sql.select_all(table, schema))] for table in projection.tables
    }


async def fold_log(
    db: LogDatabase, projection: Projection, *, until: int | None = None, skips: frozenset[int] = frozenset()
) -> Rows:
    """Give what a projection's tables should hold, by applying the log event by event in memory."""
    memory = Memory(projection)
    page = await read_page(db, 0, 10**9, max_bytes=10**12)  # type: ignore[arg-type]
    for envelope in page.envelopes:
        if envelope.position not in skips and (until is None or envelope.position <= until):
            memory.apply(envelope, REGISTRY.decode(envelope.type, envelope.version, envelope.payload))
    return rows_of(memory)


def rows_of(memory: Memory) -> Rows:
    """Give rows in memory as the database would give them."""
    return {
        table.name: [tuple(row.values()) for _, row in memory.stored_rows(table)] for table in memory.projection.tables
    }


async def assert_views_equal_fold(
    db: LogDatabase, projections: Mapping[str, Projection] = PROJECTIONS, **options: Any
) -> None:
    """Compare the views of projections with the independent fold, row by row."""
    for projection in projections.values():
        folded = await fold_log(db, projection, **options)
        assert await read_rows(db, projection) == folded


async def turns(count: int = 10) -> None:
    """Let other tasks run as far as they get without waiting for anything."""
    for _ in range(count):
        await asyncio.sleep(0)
