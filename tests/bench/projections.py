"""Projecting: catch-up in pages of either size, and rebuilds, beside reading in order with decoding alone."""

import asyncio
from time import perf_counter

import msgspec

from bench.figures import Figure
from bench.world import Bench, an_env, append_all, begin_world
from keelson.events import REGISTRY
from keelson.events.ids import Position
from keelson.log.queries import load
from keelson.log.read import read_head, read_page
from keelson.projector.leases import Leases, mint_holder
from keelson.projector.rebuild import rebuild
from keelson.views import PROJECTIONS
from support.database import Database
from support.log import appending, connected
from support.projecting import pooled

PART = "project"
LIVE_PAGE = 1000
LAGGING_PAGE = 5000
LEAST_LIVE = 30_000
LEAST_REBUILD = 60_000
EVENTS_A_COMMAND = 10
_PATIENCE_S = 300.0
_POLL_INTERVAL_S = 0.02

_READ_CHECKPOINTS = load(__file__, "read_checkpoints")


async def measure(bench: Bench) -> list[Figure]:
    """Fill a log, read it, catch up with it twice, and rebuild from it."""
    async with bench.cluster.fresh_database() as database:
        await _fill(bench, database)
        reading = [await _read(database, page) for page in (LIVE_PAGE, LAGGING_PAGE)]
        live = await _catch_up(bench, database, LIVE_PAGE, f"live: three projections, pages of {LIVE_PAGE:,}")
        async with connected(database.owner_dsn) as connection:
            head = await read_head(connection)
        rebuilt = [await _rebuild(database, name, head.position) for name in PROJECTIONS]
    async with bench.cluster.fresh_database() as database:
        await _fill(bench, database)
        lagging = await _catch_up(bench, database, LAGGING_PAGE, "catch-up: three projections, settings as shipped")
    live = msgspec.structs.replace(live, least=LEAST_LIVE)
    return [
        *reading,
        live.beside(reading[0]),
        lagging.beside(reading[1]),
        *(msgspec.structs.replace(each, least=LEAST_REBUILD).beside(reading[1]) for each in rebuilt),
    ]


async def _fill(bench: Bench, database: Database) -> None:
    async with appending(database.command_dsn) as (appender, epoch):
        await begin_world(appender, epoch)
        for _ in range(0, bench.events, 10_000):
            decisions = [an_env(epoch, EVENTS_A_COMMAND) for _ in range(10_000 // EVENTS_A_COMMAND)]
            await append_all(appender, decisions)


async def _read(database: Database, page_size: int) -> Figure:
    async with connected(database.projector_dsn) as connection:
        started, position, head = perf_counter(), Position(0), Position(1)
        while position < head:
            page = await read_page(connection, position, page_size)
            for each in page.envelopes:
                REGISTRY.decode(each.type, each.version, each.payload)
            position, head = page.envelopes[-1].position, page.head
        elapsed_s = perf_counter() - started
    return Figure(part=PART, what=f"reading and decoding alone, pages of {page_size:,}", value=head / elapsed_s)


async def _catch_up(bench: Bench, database: Database, page_size: int, what: str) -> Figure:
    """Start a projector, and time it from its first page on until all its projections are at the head."""
    options = {"commands": 0, "queries": 0, "lagging_page_size": page_size}
    starting = asyncio.create_task(_time_catch_up(database))
    try:
        async with bench.stack(database, **options):
            rate = await starting
    finally:
        starting.cancel()
        await asyncio.wait([starting])
    return Figure(part=PART, what=what, value=rate)


async def _time_catch_up(database: Database) -> float:
    first: tuple[float, int] | None = None
    async with connected(database.owner_dsn) as connection, asyncio.timeout(_PATIENCE_S):
        while True:
            row = await connection.fetchrow(_READ_CHECKPOINTS)
            assert row is not None
            if row["projections"] == len(PROJECTIONS) and row["checkpoint"]:
                first = first or (perf_counter(), row["checkpoint"])
                if row["checkpoint"] == row["head"]:
                    return float(row["head"] - first[1]) / (perf_counter() - first[0])
            await asyncio.sleep(_POLL_INTERVAL_S)


async def _rebuild(database: Database, name: str, events: int) -> Figure:
    async with pooled(database.projector_dsn, statement_timeout_s=_PATIENCE_S) as pool:
        started = perf_counter()
        await rebuild(PROJECTIONS[name], pool, Leases(pool, mint_holder(), duration_s=10.0), lambda _line: None)
        elapsed_s = perf_counter() - started
    return Figure(part=PART, what=f"rebuild of {name}, indexes and swap included", value=events / elapsed_s)
