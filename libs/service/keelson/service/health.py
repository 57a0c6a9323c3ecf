"""Health: whether the process is up, and whether it can do its work now; if not, what it cannot do.

Readiness is public, so it says no more than it must: neither addresses nor the text of foreign errors.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from keelson.log.database import UNAVAILABLE, Database, NotDurableError, check_durable
from keelson.log.epochs import LineageError
from keelson.log.migrate import pending_migrations
from keelson.service.lifecycle import NotReadyError

CHECK_TIMEOUT_S = 2.0

# A check gets the application's state; it raises NotReadyError, or what the database raised.
Check = Callable[[Any], Awaitable[None]]

_log = structlog.get_logger()


async def check_database(state: Any) -> None:
    """Check that the database of `state.pool` answers, and is durable."""
    await check_durable(state.pool)


async def check_schema(state: Any) -> None:
    """Check that the database of `state.pool` has all the migrations that this code ships."""
    await _require_schema(state.pool)


DATABASE_CHECKS: Mapping[str, Check] = {"database": check_database, "schema": check_schema}


async def require_database(db: Database) -> None:
    """Raise unless the database can be worked with: NotReadyError on an older schema, NotDurableError, or its own."""
    await check_durable(db)
    await _require_schema(db)


async def _require_schema(db: Database) -> None:
    if pending := await pending_migrations(db):
        raise NotReadyError(f"migrations are missing: {', '.join(pending)}")


async def run_checks(checks: Mapping[str, Check], state: Any) -> dict[str, str]:
    """Run checks side by side, each within CHECK_TIMEOUT_S; give for each `ok`, or what cannot be done."""
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(_run_check(name, check, state)) for name, check in checks.items()}
    return {name: task.result() for name, task in tasks.items()}


async def _run_check(name: str, check: Check, state: Any) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check(state)
    except (NotReadyError, NotDurableError, LineageError) as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:g} s"
    except UNAVAILABLE:
        return "cannot be reached"
    except Exception:  # noqa: BLE001 - a defect of a check is no reason to call the service ready
        _log.exception("readiness_check_failed", check=name)
        return "the check itself failed"
    return "ok"
