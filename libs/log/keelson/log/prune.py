"""Pruning what is kept for a while only: the answers under idempotency keys."""

from datetime import datetime

from keelson.log.database import Database
from keelson.log.queries import load

# So many in one transaction: none that runs for long, and little to do again if it is cut short.
BATCH = 10_000
KEEP_DAYS = 7

_PRUNE_KEYS = load(__file__, "prune_keys")


async def prune_keys(db: Database, before: datetime, *, batch: int = BATCH) -> int:
    """Delete the answers kept before a time, a transaction per batch; give how many there were.

    Raises the database's refusal (SQLSTATE KE005) of a time less than KEEP_DAYS ago: retries must find their answers.
    """
    deleted = 0
    while True:
        gone: int = await db.fetchval(_PRUNE_KEYS, before, batch)
        deleted += gone
        if gone < batch:
            return deleted
