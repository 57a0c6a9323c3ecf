"""The pool that a service works with, on a database that is fit for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keelson.log.database import Pool, connect, open_pool
from keelson.log.epochs import Epochs
from keelson.service.health import require_database
from keelson.service.metrics import watch_pool
from keelson.service.sessions import require_sessions
from keelson.service.settings import Settings


@asynccontextmanager
async def service_pool(
    name: str, settings: Settings, epochs: Epochs, *, standby: bool = False, **session: str
) -> AsyncIterator[Pool]:
    """Lend the pool of the service of this name, shown in its metrics; `session` are PostgreSQL's own settings.

    Its connections tell `epochs`, which is known from the first moment on; `standby` says whether the service can work
    on a server in recovery. Raises what require_sessions and require_database raise, as long as the database is away or
    not fit, and LineageError.
    """
    await require_sessions(settings)
    await _require_database(name, settings)
    pool = await open_pool(
        settings.database_url,
        max_size=settings.pool_size,
        acquire_timeout_s=settings.acquire_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        application_name=f"keelson-{name}",
        epochs=epochs,
        standby=standby,
        jit="off",
        **session,
    )
    try:
        async with pool.acquire():
            pass
        watch_pool(name, pool)
        yield pool
    finally:
        await pool.close()


async def _require_database(name: str, settings: Settings) -> None:
    """Look at the database by a connection that enters no log: there may be none yet, and readiness says what lacks."""
    connection = await connect(settings.database_url, application_name=f"keelson-{name}-check")
    try:
        await require_database(connection)
    finally:
        connection.terminate()
