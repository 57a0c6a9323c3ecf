"""The pool that a service works with, on a database that is fit for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keelson.log.database import Pool, open_pool
from keelson.service.health import require_database
from keelson.service.metrics import watch_pool
from keelson.service.sessions import require_sessions
from keelson.service.settings import Settings


@asynccontextmanager
async def service_pool(name: str, settings: Settings, **session: str) -> AsyncIterator[Pool]:
    """Lend the pool of the service of this name, shown in its metrics; `session` are PostgreSQL's own settings.

    Raises what require_sessions and require_database raise, as long as the database is away or not fit.
    """
    pool = await open_pool(
        settings.database_url,
        max_size=settings.pool_size,
        acquire_timeout_s=settings.acquire_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        application_name=f"keelson-{name}",
        jit="off",
        **session,
    )
    try:
        await require_sessions(settings)
        await require_database(pool)
        watch_pool(name, pool)
        yield pool
    finally:
        await pool.close()
