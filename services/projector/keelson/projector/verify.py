"""Verifying a projection: folding the log again, by other code, and comparing with the live tables at one position."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import islice

import asyncpg
import msgspec

from keelson.log.database import Connection, Database, Pool
from keelson.log.queries import load
from keelson.projector import checkpoints
from keelson.projector.batch import Batch
from keelson.projector.folding import describe
from keelson.projector.pages import read_batch
from keelson.views import Projection, Table, sql
from keelson.views.memory import Memory
from keelson.views.table import Key

PAGE_SIZE = 5000
SNAPSHOT_ATTEMPTS = 20
# Enough to see what kind of drift it is; the digests say that there is any.
MAX_DRIFTS = 1000

_COUNT_UNMOVED = load(__file__, "count_unmoved")

_encode = msgspec.json.Encoder().encode


class VerifyError(Exception):
    """The views cannot be compared with this code's fold of the log."""


class _SwappedError(Exception):
    """A rebuild swapped the tables between the snapshot and the locks."""


class Drift(msgspec.Struct, frozen=True):
    """A row that is not what the log says."""

    key: Key
    what: str


class TableVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A table compared: digests over its rows in the order of their keys, and what differs if they do."""

    table: str
    rows: int
    live_digest: str
    folded_digest: str
    drifts: tuple[Drift, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the table is what the log says."""
        return self.live_digest == self.folded_digest


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A projection compared at exactly one checkpoint."""

    projection: str
    checkpoint: int
    tables: tuple[TableVerdict, ...]

    @property
    def is_good(self) -> bool:
        """Whether all tables are what the log says."""
        return all(table.is_good for table in self.tables)


async def verify(projection: Projection, pool: Pool) -> Verdict:
    """Compare a projection's live tables with the log, in one snapshot. Raises VerifyError.

    Holds all rows in memory once. The projection goes on meanwhile; only a rebuild's swap waits for the comparison.
    """
    folding = _Folding(projection)
    await folding.go_on(pool)
    for _ in range(SNAPSHOT_ATTEMPTS):
        with suppress(_SwappedError, asyncpg.LockNotAvailableError):
            async with _snapshot(pool, projection) as connection:
                checkpoint = await folding.go_on(connection)
                tables = [await _compare(connection, folding.memory, table) for table in projection.tables]
                return Verdict(projection=projection.name, checkpoint=checkpoint, tables=tuple(tables))
    raise VerifyError(f"the tables of {projection.name} are being swapped all the time")


class _Folding:
    """The independent fold, up to a checkpoint that grows."""

    def __init__(self, projection: Projection) -> None:
        self.memory = Memory(projection)
        self._projection = projection
        self._position = 0

    async def go_on(self, db: Database) -> int:
        """Apply the events up to the checkpoint, and give its position."""
        checkpoint = await self._require_checkpoint(db)
        skips = await checkpoints.read_skips(db, self._projection.name)
        while self._position < checkpoint:
            batch = await read_batch(db, self._position, PAGE_SIZE)
            self._add(batch.first(checkpoint - self._position), skips)
        return checkpoint

    async def _require_checkpoint(self, db: Database) -> int:
        name, version = self._projection.name, self._projection.version
        checkpoint = await checkpoints.read_checkpoint(db, name)
        if checkpoint is None:
            raise VerifyError(f"{name} has not begun")
        if checkpoint.version != version:
            raise VerifyError(f"{name} needs rebuild: stored version {checkpoint.version}, code has {version}")
        return checkpoint.position

    def _add(self, batch: Batch, skips: frozenset[int]) -> None:
        for index, envelope in enumerate(batch.envelopes):
            if self._projection.listens_to(envelope.type) and envelope.position not in skips:
                try:
                    self.memory.apply(envelope, batch.event(index))
                except Exception as error:
                    what = f"event {envelope.position} ({envelope.type})"
                    raise VerifyError(f"{what} cannot be applied: {describe(error)}") from error
        self._position = batch.end


@asynccontextmanager
async def _snapshot(pool: Pool, projection: Projection) -> AsyncIterator[Connection]:
    """Lend a connection whose transaction sees one state of all tables; _SwappedError if they were swapped just then.

    The first statement takes the tables' locks, so that none is swapped any more. A swap that came between the snapshot
    and the locks would leave tables that are empty in the snapshot: their move is not in it either, and that is seen.
    """
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.fetch(sql.touch(projection.tables))
        names = [table.name for table in projection.tables]
        if await connection.fetchval(_COUNT_UNMOVED, names) != len(names):
            raise _SwappedError
        yield connection


async def _compare(connection: Connection, memory: Memory, table: Table) -> TableVerdict:
    live, folded = hashlib.sha256(), hashlib.sha256()
    rows = 0
    async for row in connection.cursor(sql.select_all(table), prefetch=1000):
        live.update(_encode(tuple(row)))
        rows += 1
    for _, fields in memory.stored_rows(table):
        folded.update(_encode(tuple(fields.values())))
    same = live.digest() == folded.digest()
    return TableVerdict(
        table=table.name,
        rows=rows,
        live_digest=live.hexdigest(),
        folded_digest=folded.hexdigest(),
        drifts=() if same else tuple(await _find_drifts(connection, memory, table)),
    )


async def _find_drifts(connection: Connection, memory: Memory, table: Table) -> list[Drift]:
    """Name what differs, row by row."""
    expected = dict(memory.stored_rows(table))
    drifts: list[Drift] = []
    async for row in connection.cursor(sql.select_all(table), prefetch=1000):
        key = tuple(row[name] for name in table.key)
        fields = expected.pop(key, None)
        if fields is None:
            drifts.append(Drift(key, "should not be there"))
        else:
            drifts += [
                Drift(key, f"{name} is {row[name]!r}, should be {value!r}")
                for name, value in fields.items()
                if row[name] != value
            ]
        if len(drifts) >= MAX_DRIFTS:
            return drifts
    return [*drifts, *(Drift(key, "is missing") for key in islice(expected, MAX_DRIFTS))]
