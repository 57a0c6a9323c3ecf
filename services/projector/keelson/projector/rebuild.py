"""Rebuilding a projection: new tables beside the live ones, from position 1, then swapped in one transaction.

Derived views are made over the new tables, for an SQL view belongs to its tables and not to their names, and swapped
with them. Until the swap the live tables are untouched and kept by whoever runs the projection; a rebuild that dies
leaves only tables that nobody reads, and the next one starts over.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from keelson.log.database import Connection, Pool
from keelson.log.queries import load
from keelson.log.read import read_head
from keelson.projector import checkpoints
from keelson.projector.batch import Batch
from keelson.projector.folding import Folded, PoisonError, Stop, describe, fold_batch, stop_at
from keelson.projector.leases import Leases
from keelson.projector.pages import read_batch, read_through
from keelson.projector.writer import REFUSED, write_rows
from keelson.views import Projection, sql

LEASE_DURATION_S = 10.0
PAGE_SIZE = 5000
PROGRESS_INTERVAL_S = 1.0
# Below PostgreSQL's deadlock_timeout: of a reader and a swap that wait for each other it is the swap that gives way.
# Readers queue behind a waiting swap no longer than this.
SWAP_LOCK_TIMEOUT_MS = 250
SWAP_FIRST_RETRY_S = 0.1
SWAP_MAX_RETRY_S = 2.0
SWAP_ATTEMPTS = 60

_KEEP_LEASE = load(__file__, "keep_lease")
_LOCK_CHECKPOINT = load(__file__, "lock_checkpoint")
_REPLACE_CHECKPOINT = load(__file__, "replace_checkpoint")
_BEGIN_PAGE = load(__file__, "begin_page")
_BEGIN_SWAP = load(__file__, "begin_swap")
_ANNOUNCE = load(__file__, "announce")

Report = Callable[[str], None]


class RebuildError(Exception):
    """The rebuild cannot go on; the live tables are as they were."""


class _BehindError(Exception):
    """The log has more than one page beyond the new tables: too much to apply while others wait."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What tests may want otherwise: `page_size` in events, waits in seconds."""

    page_size: int = PAGE_SIZE
    lease_wait_s: float = LEASE_DURATION_S + 2


async def rebuild(
    projection: Projection, pool: Pool, leases: Leases, report: Report, options: Options | None = None
) -> int:
    """Rebuild a projection and swap; give the position of the swap. Raises RebuildError, and UNAVAILABLE."""
    return await _Rebuild(projection, pool, leases, report, options or Options()).run()


def lease_of(projection: Projection) -> str:
    """Give the name of the lease of a projection's rebuild."""
    return f"rebuild:{projection.name}"


class _Rebuild:
    def __init__(self, projection: Projection, pool: Pool, leases: Leases, report: Report, options: Options) -> None:
        self._projection = projection
        self._pool = pool
        self._leases = leases
        self._lease = lease_of(projection)
        self._epoch = ""
        self._report = report
        self._options = options
        self._skips: frozenset[int] = frozenset()
        self._reported_at = 0.0
        self._reported_position = 0

    async def run(self) -> int:
        await self._take_lease()
        try:
            await self._begin()
            position = await self._catch_up(0)
            await self._finish_tables()
            position = await self._swap_when_close(position)
        finally:
            await self._leases.release([self._lease])
        self._report(f"swapped at position {position:,}")
        return position

    async def _take_lease(self) -> None:
        """Be the only rebuild; that of a process that died lapses soon."""
        deadline = time.monotonic() + self._options.lease_wait_s
        await self._leases.take([self._lease])
        while not self._leases.holds(self._lease):
            if time.monotonic() > deadline:
                raise RebuildError(f"{self._projection.name} is being rebuilt by another process")
            await asyncio.sleep(0.2)
            await self._leases.take([self._lease])

    @asynccontextmanager
    async def _fenced(self) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction that only the holder of the lease can have."""
        async with self._pool.acquire() as connection, connection.transaction():
            await self._keep_lease(connection)
            yield connection

    async def _keep_lease(self, connection: Connection) -> None:
        status = await connection.execute(_KEEP_LEASE, self._lease, self._leases.holder, LEASE_DURATION_S)
        if status != "UPDATE 1":
            raise RebuildError("another rebuild has taken over")

    async def _begin(self) -> None:
        """Make empty tables, in place of what a rebuild that died has left; and live ones, if there never were any."""
        self._epoch = (await read_head(self._pool)).epoch
        async with self._pool.acquire() as connection:
            await checkpoints.begin(connection, self._projection)
        self._skips = await checkpoints.read_skips(self._pool, self._projection.name)
        async with self._fenced() as connection:
            await checkpoints.create_tables(connection, self._projection, sql.NEXT)
        self._report(f"rebuilding {self._projection.name} as version {self._projection.version}")
        self._reported_at = time.monotonic()

    async def _catch_up(self, position: int) -> int:
        return await read_through(self._pool, position, self._options.page_size, self._fold, self._apply)

    def _fold(self, batch: Batch) -> Folded:
        """Fold a batch; one of another epoch would go on from a place in a history that has ended (F26)."""
        if batch.epoch != self._epoch:
            raise RebuildError("another epoch has begun; begin again")
        folded = fold_batch(self._projection, batch, self._skips)
        if folded.stop is not None:
            raise _refusal(folded.stop)
        return folded

    async def _apply(self, folded: Folded) -> None:
        async with self._fenced() as connection:
            await connection.fetchval(_BEGIN_PAGE)
            await self._write(connection, folded)
        self._report_progress(folded.batch)

    async def _write(self, connection: Connection, folded: Folded) -> None:
        batch = folded.batch
        try:
            await write_rows(connection, folded.fold, sql.NEXT)
        except PoisonError as error:
            raise _refusal(stop_at(batch.envelope_at(error.position), error)) from None
        except REFUSED as error:
            what = f"what events {batch.start + 1} to {batch.end} say"
            raise RebuildError(f"the database refuses {what}: {describe(error)}") from None

    async def _finish_tables(self) -> None:
        """Make the indexes, faster over full tables than row by row, tell the planner what is in them, derive views."""
        self._report("building indexes")
        async with self._fenced() as connection:
            await checkpoints.create_indexes(connection, self._projection, sql.NEXT)
            for table in self._projection.tables:
                await connection.execute(sql.analyze(table, sql.NEXT))
            await checkpoints.create_derived(connection, self._projection, sql.NEXT)
            await self._keep_lease(connection)

    async def _swap_when_close(self, position: int) -> int:
        """Catch up, and swap; give way to whoever holds the live tables, and come again."""
        retry_s = SWAP_FIRST_RETRY_S
        for _ in range(SWAP_ATTEMPTS):
            position = await self._catch_up(position)
            try:
                return await self._swap(position)
            except _BehindError:
                continue
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                self._report("the live tables are in use; trying again")
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, SWAP_MAX_RETRY_S)
        raise RebuildError("the live tables are in use for too long")

    async def _swap(self, position: int) -> int:
        """Apply the rest and exchange tables and views, while the checkpoint's row is locked: nothing moves then (F23).

        Locks in the order of every page and every reader: the checkpoint first, then the views, then the tables.
        """
        async with self._fenced() as connection:
            await connection.fetchval(_BEGIN_SWAP, str(SWAP_LOCK_TIMEOUT_MS))
            await connection.fetchval(_LOCK_CHECKPOINT, self._projection.name)
            rest = await read_batch(connection, position, self._options.page_size)
            if not rest.is_last:
                raise _BehindError
            await self._write(connection, self._fold(rest))
            await checkpoints.drop_all(connection, self._projection, sql.LIVE)
            for relation in self._projection.relations:
                await connection.execute(sql.move(relation))
            name, version = self._projection.name, self._projection.version
            await connection.execute(_REPLACE_CHECKPOINT, name, version, rest.end)
            await connection.fetchval(_ANNOUNCE, [f"{name} {rest.end}"])
        return rest.end

    def _report_progress(self, batch: Batch) -> None:
        now = time.monotonic()
        elapsed_s = now - self._reported_at
        if elapsed_s < PROGRESS_INTERVAL_S:
            return
        rate = (batch.end - self._reported_position) / elapsed_s
        share = batch.end / batch.head
        self._report(f"{batch.end:>14,} of {batch.head:,} events ({share:4.0%}), {rate:,.0f}/s")
        self._reported_at, self._reported_position = now, batch.end


def _refusal(stop: Stop) -> RebuildError:
    return RebuildError(f"event {stop.position} ({stop.event_type}) cannot be applied: {stop.message}")
