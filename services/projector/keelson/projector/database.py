"""The projector's connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keelson.log.database import Pool, open_pool
from keelson.log.epochs import Epochs
from keelson.projector.settings import ProjectorSettings

NAME = "projector"
# An index over a large table takes its time.
OPERATOR_STATEMENT_TIMEOUT_S = 3600.0


@asynccontextmanager
async def announcing_pool(settings: ProjectorSettings, epochs: Epochs) -> AsyncIterator[Pool]:
    """Lend the pool that sends notifications: one connection.

    What it commits holds no data, so it need not wait for the disk; it holds the lock of notifications for less time.
    """
    pool = await open_pool(
        settings.database_url,
        max_size=1,
        acquire_timeout_s=settings.acquire_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        application_name=f"keelson-{NAME}-announcer",
        epochs=epochs,
        synchronous_commit="off",
    )
    try:
        yield pool
    finally:
        await pool.close()


async def open_operators(settings: ProjectorSettings) -> Pool:
    """Make the pool of an operator's command, which may take its time."""
    return await open_pool(
        settings.database_url,
        max_size=4,
        acquire_timeout_s=settings.acquire_timeout_s,
        statement_timeout_s=OPERATOR_STATEMENT_TIMEOUT_S,
        application_name=f"keelson-{NAME}-operator",
        lock_timeout=str(int(settings.lock_timeout_s * 1000)),
        jit="off",
    )
