"""Applying a batch to a projection: fold, write, move the checkpoint; and finding the event that cannot be applied."""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple

import asyncpg

from keelson.log.database import UNAVAILABLE, Connection, Pool
from keelson.projector import checkpoints
from keelson.projector.batch import Batch
from keelson.projector.folding import Folded, PoisonError, Stop, fold_batch, fold_until, stop_at
from keelson.projector.pages import LogGapError
from keelson.projector.writer import REFUSED, write_rows
from keelson.views import Projection
from keelson.views.fold import Fold

# What passes by itself: the place is read again and the page applied again.
PASSING: tuple[type[BaseException], ...] = (*UNAVAILABLE, asyncpg.TransactionRollbackError, LogGapError)
# A plan or a type that this connection remembers is of an older schema (F24); asyncpg has forgotten it by now.
_OUTDATED = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
_ATTEMPTS = 3


class Place(NamedTuple):
    """Where a runner left a projection, and the positions that it skips."""

    position: int
    skips: frozenset[int]


class Applier:
    """Applies batches to one projection, each in one transaction with its checkpoint (F16)."""

    def __init__(self, projection: Projection, pool: Pool) -> None:
        self._projection = projection
        self._pool = pool

    async def apply(self, place: Place, batch: Batch, rate: float) -> Folded:
        """Apply a batch as far as it goes, and give what was applied, with the reason if that is not all of it.

        Raises CheckpointMovedError if the projection is not at this place, and PASSING; then nothing was written, or,
        when a commit's answer was lost, all of it.
        """
        folded = fold_batch(self._projection, batch, place.skips)
        # Each turn ends before an earlier event than the last, and few pages hold even one such event.
        while True:
            stop = await self._try_write(folded, place, rate)
            if stop is None:
                return folded
            folded = fold_until(self._projection, batch, place.skips, stop)

    async def stop(self, batch: Batch, stop: Stop) -> None:
        """Record why the projection does not go on from a batch's end. Raises CheckpointMovedError and PASSING."""
        async with self._pool.acquire() as connection:
            await checkpoints.stop(connection, self._projection, batch.end, batch.epoch, stop)

    async def _try_write(self, folded: Folded, place: Place, rate: float) -> Stop | None:
        """Write what was folded; or give the event that stops the projection, whatever the database said (F18)."""
        try:
            await self._write(folded, rate)
        except PASSING:
            raise
        except PoisonError as error:
            return stop_at(folded.batch.envelope_at(error.position), error)
        except REFUSED as error:
            return stop_at(folded.batch.envelopes[await self._find_refused(folded.batch, place)], error)
        except asyncpg.PostgresError as error:  # a table that is gone, a right that was taken: not of any one event
            return stop_at(folded.batch.envelopes[0], error)
        return None

    async def _write(self, folded: Folded, rate: float) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._pool.acquire() as connection, _transaction(connection, folded):
                    await self._write_in(connection, folded, rate)
            except _OUTDATED:
                if attempt == _ATTEMPTS:
                    raise
            else:
                return

    async def _write_in(self, connection: Connection, folded: Folded, rate: float) -> None:
        batch = folded.batch
        if batch.envelopes:
            await checkpoints.move(connection, self._projection, batch, rate)
            await write_rows(connection, folded.fold)

    async def _find_refused(self, batch: Batch, place: Place) -> int:
        """Find the first event whose rows the database refuses, by halving; all trials are rolled back."""
        good, bad = 0, len(batch.envelopes)
        while bad - good > 1:
            middle = (good + bad) // 2
            if await self._is_refused(fold_batch(self._projection, batch.first(middle), place.skips).fold):
                bad = middle
            else:
                good = middle
        return bad - 1

    async def _is_refused(self, fold: Fold) -> bool:
        async with self._pool.acquire() as connection:
            trial = connection.transaction()
            await trial.start()
            try:
                await write_rows(connection, fold)
            except REFUSED:
                return True
            finally:
                await trial.rollback()
            return False


def _transaction(connection: Connection, folded: Folded) -> AbstractAsyncContextManager[Any]:
    """Begin what a page is written in; where it changes no row, moving the checkpoint is one statement, and atomic."""
    return connection.transaction() if folded.fold.tables else nullcontext()
