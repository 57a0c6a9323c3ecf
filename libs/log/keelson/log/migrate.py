"""Migrations: plain SQL files, applied in order, each once, by pogo (ADR 0004)."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

import asyncpg
from pogo_core.util import migrate as pogo

from keelson.log.claims import renew_claims
from keelson.log.database import Database
from keelson.log.queries import load

MIGRATIONS = Path(__file__).parent / "migrations"

# pogo logs each migration as a warning; callers get the names instead.
_quiet = logging.getLogger("keelson.log.migrate")
_quiet.setLevel(logging.ERROR)

_LOCK_MIGRATIONS = load(__file__, "lock_migrations")
_HAS_MIGRATIONS = load(__file__, "has_migrations")
_APPLIED_MIGRATIONS = load(__file__, "applied_migrations")
_BEGIN_FIRST_EPOCH = load(__file__, "begin_first_epoch")
_RENEW_EPOCH = load(__file__, "renew_epoch")


async def migrate(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    """Apply what is missing, all or nothing, and begin the first epoch; give the names of what was applied.

    Another epoch begins if the database is in another lineage than the log was (F26).

    Then make the claims anew if they were made by older rules: a rebuild, that appends wait for at its end only.

    The connection is the log's owner's. Two runs at once wait for each other. Waiting for a table's lock is bounded
    by the lock time-out, so that a migration never queues readers and writers behind itself for long (F24).
    """
    async with connection.transaction():
        await connection.execute(_LOCK_MIGRATIONS)
        missing = await pending_migrations(connection)
        await pogo.apply(connection, MIGRATIONS, schema_name="log", logger=_quiet)
        await connection.fetchval(_BEGIN_FIRST_EPOCH, secrets.token_hex(8))
        await connection.fetchval(_RENEW_EPOCH, "keelson migrate")
    await renew_claims(connection)
    return missing


async def pending_migrations(db: Database) -> list[str]:
    """Name the migrations that this code ships and the database has not had: a service needs them all."""
    rows = await db.fetch(_APPLIED_MIGRATIONS) if await db.fetchval(_HAS_MIGRATIONS) else []
    applied = {row["migration_id"] for row in rows}
    return sorted(path.stem for path in MIGRATIONS.glob("*.sql") if path.stem not in applied)
