"""The projector's connections."""

from keelson.log.database import Pool, open_pool
from keelson.projector.settings import ProjectorSettings

NAME = "projector"
# An index over a large table takes its time.
OPERATOR_STATEMENT_TIMEOUT_S = 3600.0


async def open_writers(settings: ProjectorSettings) -> Pool:
    """Make the pool that reads the log and writes the views.

    A session idle within a transaction for a second is ended, so that a frozen runner frees the checkpoint's row.
    """
    return await open_pool(
        settings.database_url,
        max_size=settings.pool_size,
        acquire_timeout_s=settings.acquire_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        application_name=f"keelson-{NAME}",
        lock_timeout=str(int(settings.lock_timeout_s * 1000)),
        jit="off",
    )


async def open_announcers(settings: ProjectorSettings) -> Pool:
    """Make the pool that sends notifications: one connection.

    What it commits holds no data, so it need not wait for the disk; it holds the lock of notifications for less time.
    """
    return await open_pool(
        settings.database_url,
        max_size=1,
        acquire_timeout_s=settings.acquire_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        application_name=f"keelson-{NAME}-announcer",
        synchronous_commit="off",
    )


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
